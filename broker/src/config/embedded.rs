//! Settings for a broker inside another program: a test, a demonstration, a deployment of one process.

use std::path::PathBuf;

use bytesize::ByteSize;

use super::{sections::Config, value::Ack};

/// Four of the largest message that is allowed by default, with room: files stay small, and no message that works in
/// production is refused in a test.
const SEGMENT_SIZE: ByteSize = ByteSize::mib(20);
/// Threads that serve connections; other work of the same program needs the cores, too.
const REACTORS: usize = 2;

impl Config {
    /// For tests: free ports on the loopback, small files, and a folder of its own below the folder for temporary files,
    /// which goes when the broker has stopped (not when the process is killed). Nothing of it survives, so nothing waits
    /// for the disk: `store.ack` is "memory". All else is as in [`Config::default`]; brokers started from it share
    /// nothing.
    ///
    /// Change what the test is about:
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use mezzo_broker::Config;
    ///
    /// let mut config = Config::temporary();
    /// config.transaction.timeout = Duration::from_millis(500);
    /// config.set("topic.auto_create=false")?;
    /// # Ok::<(), mezzo_broker::config::ConfigError>(())
    /// ```
    #[must_use]
    pub fn temporary() -> Self {
        let mut config = Self::embedded(PathBuf::new());
        config.store.ack = Ack::Memory;
        config
    }

    /// For a broker inside a program that keeps its data: free ports on the loopback, small files, and data in `dir`,
    /// which is created if it is missing and stays. Answers wait for the disk, as by default. Set
    /// `server.name_server_listen` for clients of other processes to find it at.
    #[must_use]
    pub fn embedded(dir: impl Into<PathBuf>) -> Self {
        let mut config = Self::default();
        config.server.listen.set_port(0);
        config.server.name_server_listen.set_port(0);
        config.server.reactors = REACTORS;
        config.store.dir = dir.into();
        config.store.segment_size = SEGMENT_SIZE;
        config.store.checkpoint_size = SEGMENT_SIZE;
        config
    }

    /// Whether the broker makes a folder for itself. Only a program can say so: files and the command line cannot name
    /// an empty path.
    pub(crate) fn is_temporary(&self) -> bool {
        self.store.dir.as_os_str().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_for_other_programs_fit_each_other_and_take_what_production_takes() {
        for config in [Config::temporary(), Config::embedded("data")] {
            config.check().unwrap();
            assert_eq!((config.server.listen.port(), config.server.name_server_listen.port()), (0, 0));
            assert_eq!(config.limits, Config::default().limits);
        }
    }

    #[test]
    fn only_a_program_can_ask_for_a_folder_that_goes() {
        assert!(Config::temporary().is_temporary());
        assert!(!Config::embedded("data").is_temporary());
        let mut given = Config::temporary();
        given.store.dir = "data".into();
        assert!(!given.is_temporary());
        for empty in ["store.dir=", "store.dir= "] {
            assert!(Config::default().set(empty).is_err(), "{empty:?}");
        }
    }
}
