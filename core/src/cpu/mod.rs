//! What belongs to one CPU: plain data, and the area that holds it.

pub mod app;
pub mod counters;
pub mod percpu;
pub mod registers;
