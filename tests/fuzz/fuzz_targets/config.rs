//! Any text as a configuration file or assignment: taken over or refused; what is printed is read again.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mezzo_broker::Config;
use mezzo_broker::config::commented_toml;

fuzz_target!(|text: &str| {
    let mut config = Config::default();
    let _ = config.set(text);
    for line in text.lines() {
        let _ = config.set(line);
    }
    let _ = config.merge_toml(text, Path::new("mezzo.toml"));
    let _ = config.check();
    let printed = commented_toml(&config);
    let mut again = Config::default();
    again.merge_toml(&printed, Path::new("printed.toml")).expect("what is printed is read");
    assert_eq!(commented_toml(&again), printed);
});
