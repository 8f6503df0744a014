//! Whole lives of a broker in one thread, on a disk that forgets what was not synced and fails.

mod acks;
mod casing;
mod crash;
mod large;
mod late;
mod life;
mod logged;
mod retention;
mod shortage;
mod start;
mod visits;
