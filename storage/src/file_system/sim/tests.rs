//! What the simulated disk promises to the tests that are built on it.

use super::*;

fn disk_with(name: &str) -> (SimulatedDisk, Arc<dyn File>) {
    let disk = SimulatedDisk::new();
    disk.create_dir_all(Path::new("/d")).unwrap();
    let file = disk.open(Path::new(name), OpenMode::Create).unwrap();
    (disk, file)
}

#[test]
fn only_synced_bytes_under_a_synced_name_survive_a_power_cut() {
    let (disk, file) = disk_with("/d/f");
    file.write_all_at(b"one", 0).unwrap();
    file.sync_data().unwrap();
    assert!(!disk.crash(CrashMode::LoseUnsynced).exists(Path::new("/d/f")).unwrap());
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_all_at(b"two", 0).unwrap();
    let left = disk.crash(CrashMode::LoseUnsynced);
    assert_eq!(left.content(Path::new("/d/f")).unwrap(), b"one");
    assert_eq!(disk.crash(CrashMode::KeepAll).content(Path::new("/d/f")).unwrap(), b"two");
}

#[test]
fn a_killed_process_leaves_its_pending_bytes_pending() {
    let (disk, file) = disk_with("/d/f");
    file.sync_all().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_all_at(b"abc", 0).unwrap();
    let killed = disk.crash(CrashMode::KeepAll);
    assert_eq!(killed.crash(CrashMode::LoseUnsynced).content(Path::new("/d/f")).unwrap(), b"");
}

/// A name whose removal a power cut forgets leads to its file, also when the process was killed in between.
#[test]
fn a_removal_that_is_forgotten_brings_the_file_back() {
    let (disk, file) = disk_with("/d/f");
    file.write_all_at(b"abc", 0).unwrap();
    file.sync_all().unwrap();
    disk.remove(Path::new("/d/f")).unwrap();
    let killed = disk.crash(CrashMode::KeepAll);
    assert!(!killed.exists(Path::new("/d/f")).unwrap());
    let mut came_back = 0;
    for seed in 0..50 {
        let cut = killed.crash(CrashMode::Seeded(seed));
        if cut.exists(Path::new("/d/f")).unwrap() {
            came_back += 1;
            assert_eq!(cut.content(Path::new("/d/f")).unwrap(), b"abc");
        }
    }
    assert!((1..50).contains(&came_back));
}

#[test]
fn after_a_failed_sync_the_bytes_are_readable_and_never_durable() {
    let (disk, file) = disk_with("/d/f");
    disk.sync_dir(Path::new("/d")).unwrap();
    file.allocate(3).unwrap();
    file.sync_all().unwrap();
    file.write_all_at(b"abc", 0).unwrap();
    disk.fail_sync(1);
    file.sync_data().unwrap_err();
    file.sync_data().unwrap();
    assert_eq!(disk.content(Path::new("/d/f")).unwrap(), b"abc");
    assert_eq!(disk.crash(CrashMode::LoseUnsynced).content(Path::new("/d/f")).unwrap(), [0; 3]);
}

#[test]
fn seeded_crashes_repeat_themselves_and_differ_by_sector() {
    let (disk, file) = disk_with("/d/f");
    file.allocate(64 * 512).unwrap();
    file.sync_all().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_all_at(&[7; 64 * 512], 0).unwrap();
    let mut partly = 0;
    for seed in 0..50 {
        let content = |disk: &SimulatedDisk| disk.content(Path::new("/d/f")).unwrap();
        let left = content(&disk.crash(CrashMode::Seeded(seed)));
        assert_eq!(left, content(&disk.crash(CrashMode::Seeded(seed))));
        let kept = left.iter().filter(|byte| **byte == 7).count();
        partly += usize::from(kept > 0 && kept < left.len());
    }
    assert!(partly > 25, "only {partly} of 50 crashes kept a part");
}

#[test]
fn a_torn_write_keeps_its_first_bytes_and_ends_the_process() {
    let (disk, file) = disk_with("/d/f");
    disk.torn_write_at(2, 1);
    file.write_all_at(b"ab", 0).unwrap();
    file.write_all_at(b"cd", 2).unwrap_err();
    file.sync_data().unwrap_err();
    assert_eq!(disk.crash(CrashMode::KeepAll).content(Path::new("/d/f")).unwrap(), b"abc");
}

#[test]
fn a_full_disk_refuses_growth_and_takes_it_after_a_removal() {
    let (disk, file) = disk_with("/d/f");
    disk.limit_space(Some(100));
    file.allocate(80).unwrap();
    assert_eq!(file.allocate(101).unwrap_err().kind(), io::ErrorKind::StorageFull);
    let other = disk.open(Path::new("/d/g"), OpenMode::Create).unwrap();
    assert_eq!(other.allocate(21).unwrap_err().kind(), io::ErrorKind::StorageFull);
    disk.remove(Path::new("/d/f")).unwrap();
    other.allocate(100).unwrap();
}

#[test]
fn the_process_dies_at_the_counted_operation() {
    let (disk, file) = disk_with("/d/f");
    disk.fail_after_ops(2);
    file.write_all_at(b"a", 0).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(b"b", 1).unwrap_err();
    disk.rename(Path::new("/d/f"), Path::new("/d/g")).unwrap_err();
    assert_eq!(disk.content(Path::new("/d/f")).unwrap(), b"a");
}

#[test]
fn a_file_that_shrinks_and_grows_reads_zeros() {
    let (_, file) = disk_with("/d/f");
    file.write_all_at(&[9; 6000], 0).unwrap();
    file.set_len(10).unwrap();
    file.set_len(6000).unwrap();
    let mut bytes = vec![1; 6000];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes[..10].iter().all(|b| *b == 9) && bytes[10..].iter().all(|b| *b == 0));
}

#[test]
fn locks_exclude_each_other_and_end_with_their_process() {
    let (disk, _) = disk_with("/d/f");
    let path = Path::new("/d/lock");
    let held = disk.lock(path).unwrap();
    assert_eq!(disk.lock(path).err().unwrap().kind(), io::ErrorKind::WouldBlock);
    disk.crash(CrashMode::KeepAll).lock(path).unwrap();
    drop(held);
    disk.lock(path).unwrap();
}

#[test]
fn a_folder_is_durable_when_the_one_that_holds_it_is_synced() {
    let disk = SimulatedDisk::new();
    disk.create_dir_all(Path::new("/a/b")).unwrap();
    disk.sync_dir(Path::new("/a")).unwrap();
    assert_eq!(disk.unsynced_folders(), [Path::new("/a")]);
    disk.sync_dir(Path::new("/")).unwrap();
    disk.create_dir_all(Path::new("/a/b")).unwrap();
    assert!(disk.unsynced_folders().is_empty());
}

#[test]
fn flips_spare_what_was_synced() {
    let (disk, file) = disk_with("/d/f");
    file.write_all_at(&[7; 100], 0).unwrap();
    file.sync_all().unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.write_all_at(&[7; 64 * 512], 100).unwrap();
    let mut flipped = 0;
    for seed in 0..50 {
        let left = disk.crash(CrashMode::SeededWithFlips(seed)).content(Path::new("/d/f")).unwrap();
        assert_eq!(left[..100], [7; 100], "also in a sector that was written again");
        flipped += left[100..].iter().filter(|byte| **byte != 0 && **byte != 7).count();
    }
    assert!(flipped > 50, "only {flipped} bytes were flipped in 50 crashes");
}

#[test]
fn a_read_fails_once_and_a_fault_that_is_taken_back_does_not_happen() {
    let (disk, file) = disk_with("/d/f");
    file.write_all_at(b"abc", 0).unwrap();
    let mut bytes = [0; 3];
    disk.fail_read(2);
    file.read_exact_at(&mut bytes, 0).unwrap();
    file.read_exact_at(&mut bytes, 0).unwrap_err();
    file.read_exact_at(&mut bytes, 0).unwrap();
    disk.fail_after_ops(0);
    disk.fail_read(1);
    disk.forget_faults();
    file.write_all_at(b"d", 3).unwrap();
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert!(!disk.has_died());
    assert_eq!(disk.used_space(), 4);
    disk.fail_after_ops(0);
    file.sync_data().unwrap_err();
    assert!(disk.has_died());
}

#[test]
fn operations_are_named_by_kind_and_file_from_when_it_is_asked_for() {
    let (disk, file) = disk_with("/d/f");
    file.write_all_at(b"before", 0).unwrap();
    disk.record_operations();
    file.write_all_at(b"abc", 0).unwrap();
    file.sync_all().unwrap();
    disk.rename(Path::new("/d/f"), Path::new("/d/g")).unwrap();
    disk.sync_dir(Path::new("/d")).unwrap();
    file.set_len(1).unwrap();
    disk.remove(Path::new("/d/g")).unwrap();
    disk.fail_after_ops(0);
    file.write_all_at(b"dead", 0).unwrap_err();
    let names: Vec<String> = disk.recorded().iter().map(ToString::to_string).collect();
    let all =
        ["Write /d/f (3 bytes)", "Sync /d/f", "Rename /d/g", "SyncFolder /d", "Resize /d/g", "Remove /d/g"];
    assert_eq!(names, all);
    assert!(disk.crash(CrashMode::KeepAll).recorded().is_empty());
}
