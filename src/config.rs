//! Configuration: flags, variables, file, defaults.
