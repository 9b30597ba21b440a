//! Tests of the log as a whole; those of single parts stand beside them.

mod crash_points;
mod damage;
mod model;
mod reading;
mod restarts;
mod room;
