//! How fast Mezzo is, measured so that the figure means something.
//!
//! Two programs are built from this crate. `mezzo-bench` is the load generator: it speaks the remoting protocol over
//! plain blocking sockets and does as little per message as it can, because it shares the machine with the broker.
//! `mezzo-ceiling` parses the same frames with the same functions as the broker, stores nothing and answers: what a
//! broker could reach if keeping messages were free. A rate is told as a share of the ceiling of the same run;
//! absolute numbers move with the machine's mood. `run.sh` runs the whole grid.
//!
//! ```text
//! options ─> load ─┬─ closed_loop   N in flight per connection, as fast as answers come
//!                  └─ open_loop     a fixed rate; latency counts from the moment a request was due
//!            wire/    request (prebuilt frames), reply (finds four fields, skips the rest)
//!            measure  window, histogram, counters      process  CPU and bytes written, from /proc
//!            report   one JSON line                    table    many lines -> Markdown
//! ```

pub mod ceiling;
pub mod closed_loop;
pub mod load;
pub mod measure;
pub mod open_loop;
pub mod options;
pub mod process;
pub mod report;
pub mod table;
pub mod wire;
