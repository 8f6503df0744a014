//! A file system in memory that forgets what was not synced.
