//! Who makes things go wrong.

use std::sync::Arc;
use std::time::Duration;

use mezzo_storage::file_system::CrashMode;

use crate::dice::Dice;
use crate::host::Order;
use crate::net::Cut;
use crate::plan::Fault;
use crate::trace::note;
use crate::world::World;

/// Lets faults happen until it is aborted.
pub async fn run(world: Arc<World>) {
    let mut dice = world.dice.of("nemesis");
    loop {
        tokio::time::sleep(dice.pause(50, world.plan.fault_pause_ms_max)).await;
        let fault = *dice.pick(&world.plan.faults);
        note!(world.trace, "nemesis: {fault:?}");
        if happens(&world, fault, &mut dice) {
            *world.history().stats.faults.entry(fault).or_default() += 1;
        }
    }
}

/// Ends all faults that last.
pub fn calm(world: &World) {
    world.end_chaos();
    world.net.set_slow(false);
    // connections that only one side holds for open are a fault that lasts
    world.net.cut_all(Cut::Reset);
    if let Some(process) = world.host.process() {
        process.disk.limit_space(None);
        process.disk.forget_faults();
    }
    note!(world.trace, "nemesis: calm");
}

/// Makes a fault happen, or arranges it; false if there is nothing that it could happen to.
fn happens(world: &Arc<World>, fault: Fault, dice: &mut Dice) -> bool {
    let Some(process) = world.host.process() else { return false };
    let disk = &process.disk;
    match fault {
        Fault::CrashAtIo if dice.one_in(3) => {
            disk.torn_write_at(dice.between(1, 12), dice.below(700) as usize)
        }
        Fault::CrashAtIo => disk.fail_after_ops(dice.below(30)),
        Fault::Kill => world.host.order(Order::End(CrashMode::KeepAll)),
        Fault::PowerCut => {
            let mode = match dice.below(3) {
                0 => CrashMode::LoseUnsynced,
                1 => CrashMode::Seeded(dice.next()),
                _ => CrashMode::SeededWithFlips(dice.next()),
            };
            world.host.order(Order::End(mode));
        }
        Fault::Restart => world.host.order(Order::Restart),
        Fault::WriteError => disk.fail_write(dice.between(1, 20)),
        Fault::SyncError => disk.fail_sync(dice.between(1, 20)),
        Fault::ReadError => disk.fail_read(dice.between(1, 6)),
        Fault::DiskFull => {
            let room = *dice.pick(&[0, 4 << 10, 300 << 10, 1 << 20]);
            disk.limit_space(Some(disk.used_space() + room));
            let until = dice.pause(500, 6_000);
            world.history().disk_full(world.now_ms(), until.as_millis() as u64);
            let disk = disk.clone();
            world.spawn(async move {
                tokio::time::sleep(until).await;
                disk.limit_space(None);
            });
        }
        Fault::ClockJump => {
            let by_ms = match dice.below(4) {
                0 => dice.between(1, 2_000) as i64,
                1 => dice.between(60_000, 3 * 3_600_000) as i64,
                2 => -(dice.between(1, 60_000) as i64),
                _ => -(dice.between(60_000, 24 * 3_600_000) as i64),
            };
            note!(world.trace, "nemesis: clock by {by_ms} ms");
            world.host.wall.jump(by_ms);
            if let Ok(by_ms @ 1..) = u64::try_from(by_ms) {
                world.history().leaps.push((world.now_ms(), by_ms));
            }
        }
        Fault::Cut => {
            let cut = *dice.pick(&[Cut::Reset, Cut::BrokerKnows, Cut::ClientKnows, Cut::Silent]);
            return world.net.cut_one(cut).is_some();
        }
        Fault::CutAll => world.net.cut_all(*dice.pick(&[Cut::Reset, Cut::ClientKnows, Cut::Silent])),
        Fault::Slow => {
            world.net.set_slow(true);
            let (net, until) = (Arc::clone(&world.net), dice.pause(200, 3_000));
            world.spawn(async move {
                tokio::time::sleep(until).await;
                net.set_slow(false);
            });
        }
        Fault::ClientCrash => world.kill_a_client(),
    }
    true
}

/// How long a full disk may still be felt after it has room again.
pub const AFTER_FULL: Duration = Duration::from_secs(4);
