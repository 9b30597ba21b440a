//! What the process and its folder take, second by second, and whether that is flat.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What is looked at: its name, its unit in bytes (1: a plain number), and by how much the last third of a run may exceed
/// the second: this share, and this much besides.
struct Measure {
    name: &'static str,
    unit: u64,
    share_percent: u64,
    besides: u64,
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// Of each the median of a third counts: a peak is no growth. Folder and maps breathe with the segments, of 1 MiB here;
/// threads that wait for the disk are started when they are first needed, and each brings half a dozen maps.
const MEASURES: [Measure; 7] = [
    Measure { name: "memory KiB", unit: KIB, share_percent: 10, besides: 6 * MIB },
    Measure { name: "open files", unit: 1, share_percent: 10, besides: 10 },
    Measure { name: "threads", unit: 1, share_percent: 10, besides: 8 },
    Measure { name: "maps", unit: 1, share_percent: 10, besides: 64 },
    Measure { name: "mapped KiB", unit: KIB, share_percent: 20, besides: 4 * MIB },
    Measure { name: "files", unit: 1, share_percent: 15, besides: 6 },
    Measure { name: "folder KiB", unit: KIB, share_percent: 20, besides: 4 * MIB },
];

/// One look, in the order of [`MEASURES`].
pub(crate) type Sample = [u64; MEASURES.len()];

/// Looks at a process and its folder; `None` when the process is gone.
pub(crate) fn sample(pid: u32, data: &Path) -> Option<Sample> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let open = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count() as u64;
    let folder = data.to_str()?;
    let mapped: u64 = maps.lines().filter(|line| line.contains(folder)).filter_map(map_bytes).sum();
    let (mut files, mut bytes) = (0, 0);
    weigh(data, &mut files, &mut bytes);
    let resident = field("VmRSS:")? * KIB;
    Some([resident, open, field("Threads:")?, maps.lines().count() as u64, mapped, files, bytes])
}

/// Bytes of a line of `/proc/<pid>/maps`.
fn map_bytes(line: &str) -> Option<u64> {
    let (from, to) = line.split_whitespace().next()?.split_once('-')?;
    Some(u64::from_str_radix(to, 16).ok()? - u64::from_str_radix(from, 16).ok()?)
}

/// Files below a folder, and the bytes that they take on the disk. What goes meanwhile does not count.
fn weigh(folder: &Path, files: &mut u64, bytes: &mut u64) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => weigh(&entry.path(), files, bytes),
            Ok(meta) => {
                *files += 1;
                *bytes += meta.blocks() * 512;
            }
            Err(_) => {}
        }
    }
}

/// All samples as a table: at most `rows` of them, evenly.
pub(crate) fn table(samples: &[Sample], rows: usize) -> String {
    let mut text = String::from("  sample");
    MEASURES.iter().for_each(|measure| text.push_str(&format!("{:>12}", measure.name)));
    let every = samples.len().div_ceil(rows.max(1)).max(1);
    for (number, sample) in samples.iter().enumerate().filter(|(number, _)| number % every == 0) {
        text.push_str(&format!("\n{number:8}"));
        for (value, measure) in sample.iter().zip(&MEASURES) {
            text.push_str(&format!("{:>12}", value / measure.unit));
        }
    }
    text
}

/// What has grown from the second third to the last by more than is allowed, in words.
pub(crate) fn grown(samples: &[Sample]) -> Vec<String> {
    let third = samples.len() / 3;
    let (second, last) = (&samples[third..2 * third], &samples[2 * third..]);
    let grown = MEASURES.iter().enumerate().filter_map(|(number, measure)| {
        let (before, after) = (median(second, number), median(last, number));
        let allowed = before + before * measure.share_percent / 100 + measure.besides;
        let (name, unit) = (measure.name, measure.unit);
        (after > allowed)
            .then(|| format!("{name}: {} in the second third, {} in the last", before / unit, after / unit))
    });
    grown.collect()
}

fn median(samples: &[Sample], number: usize) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(|sample| sample[number]).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_of_anything_is_noticed_and_noise_is_not() {
        let flat: Vec<Sample> =
            (0..60).map(|n| [40 * MIB + n % 3 * KIB, 50 + n % 4, 12, 90, 8 * MIB, 30, 9 * MIB]).collect();
        assert_eq!(grown(&flat), [""; 0]);
        for (number, measure) in MEASURES.iter().enumerate() {
            let mut leaking = flat.clone();
            for (at, sample) in (0..).zip(&mut leaking) {
                // about what is allowed from third to third, and half as much again
                sample[number] += at * (measure.besides + sample[number] * measure.share_percent / 100) / 12;
            }
            assert_eq!(grown(&leaking).len(), 1, "{} grows", measure.name);
            let mut peak = flat.clone();
            peak[55][number] *= 10;
            assert_eq!(grown(&peak), [""; 0], "a peak of {} is no growth", measure.name);
        }
    }
}
