#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wiber::fuzzing::run("topic_log_recovery", bytes));
