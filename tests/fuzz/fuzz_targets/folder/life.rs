//! A store on the damaged folder: everything is read, something is written, and it opens again.

use std::sync::Arc;

use mezzo_protocol::ids::QueueOffset;
use mezzo_protocol::time::Timestamp;
use mezzo_storage::file_system::SimulatedDisk;
use mezzo_storage::{
    Batch, EndTarget, EndTransaction, NoObserver, OpenFilter, Operation, Outcome, Source, Store,
};

use super::{BEGIN_MS, options};

/// Opens twice; the second time must succeed if all steps of the first did.
pub fn live_on(disk: &SimulatedDisk) {
    let mut now = BEGIN_MS + 60_000;
    let Ok(store) = open(disk, now) else { return };
    let lived = live(&store, &mut now);
    let closed = store.close(Timestamp::from_ms(now));
    drop(store);
    if lived && closed.is_ok() {
        open(disk, now + 1).expect("what this program has closed in order opens");
    }
}

fn open(disk: &SimulatedDisk, now: u64) -> Result<Arc<Store>, mezzo_storage::StorageError> {
    let fs = Arc::new(disk.clone());
    Store::open(fs, options(), Timestamp::from_ms(now), Arc::new(NoObserver)).map(|(store, _)| store)
}

/// Whether no step failed.
fn live(store: &Arc<Store>, now: &mut u64) -> bool {
    read_all(store);
    let at = Timestamp::from_ms(*now);
    let open = store.open_transactions_page(&OpenFilter::default(), at, None, 1000);
    for details in &open {
        let origin = details.transaction.origin;
        let _ = (store.timeline(origin), store.half_message(origin), store.open_state(origin));
        let _ = store.read_by_position(origin);
    }
    let _ = store.due_checks(at, 1000);
    let _ = store.offsets_of("cg");
    for (number, details) in open.iter().enumerate().take(20) {
        *now += 1;
        let outcome = if number % 2 == 0 { Outcome::Committed } else { Outcome::RolledBack };
        let target = EndTarget::Origin(details.transaction.origin);
        let end = EndTransaction::new(target, outcome, Source::Operator);
        if !done(store, *now, Operation::End(end)) {
            return false;
        }
    }
    *now += 100_000;
    if !done(store, *now, Operation::Tick(Timestamp::from_ms(*now))) || store.sync().is_err() {
        return false;
    }
    read_all(store);
    store.keep(Timestamp::from_ms(*now)).is_ok()
}

fn done(store: &Arc<Store>, now: u64, operation: Operation) -> bool {
    let mut batch = Batch::default();
    batch.push(operation);
    while matches!(store.prepare_step(), Ok(true)) {}
    store.append(Timestamp::from_ms(now), &mut batch).is_ok()
}

fn read_all(store: &Arc<Store>) {
    for topic in store.topics() {
        for queue in topic.queues().iter() {
            let Ok(read) = store.read_entries(queue, QueueOffset(0), 10_000, &mut |_| true) else { continue };
            for (_, entry) in &read.entries {
                let _ = store.read_message(entry);
            }
            let _ = store.search_by_time(queue, Timestamp::from_ms(BEGIN_MS + 100));
        }
    }
}
