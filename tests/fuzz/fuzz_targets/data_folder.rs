//! Any damage to any file of a data folder, with checksums put right or not: the store opens or says why not, answers
//! every question with bytes or an error, and what it then writes opens again.
#![no_main]

use libfuzzer_sys::fuzz_target;

mod folder;

fuzz_target!(|data: &[u8]| {
    let disk = folder::made();
    let mut input = data;
    // few enough that one input ends soon
    for _ in 0..16 {
        if !folder::damage(&disk, &mut input) {
            break;
        }
    }
    folder::live_on(&disk);
});
