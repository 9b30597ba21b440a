//! Makes scripts out of seeds.

use std::collections::VecDeque;

use super::steps::{
    By, CLIENTS, CONSUMERS, Claim, Crash, End, Moves, Name, Place, QUEUES, Reply, Step, TOPICS, Who,
};

/// A small deterministic generator (xorshift), so that a seed is a script.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Makes scripts. It remembers what it has begun, not what came of it.
struct Script {
    random: Random,
    steps: Vec<Step>,
    next: u32,
    /// Begun and, if all went well, undecided; with the messages they have.
    begun: VecDeque<(Name, u16)>,
    /// Decided, if all went well.
    ended: Vec<(Name, u16)>,
}

/// The script of a seed.
pub fn script(seed: u64, steps: usize) -> Vec<Step> {
    let random = Random::new(seed);
    let mut script = Script { random, steps: Vec::new(), next: 0, begun: VecDeque::new(), ended: Vec::new() };
    for topic in 0..TOPICS {
        script.steps.push(Step::PutTopic { topic, queues: 1 + topic % QUEUES });
    }
    while script.steps.len() < steps {
        if script.random.one_in(300) {
            script.drain();
        } else {
            let step = script.step();
            script.steps.push(step);
        }
    }
    script.steps.truncate(steps);
    script.steps
}

impl Script {
    fn place(&mut self) -> Place {
        let topic = self.random.below(u64::from(TOPICS)) as u8;
        // a topic's first queue always exists while the topic does
        let queue = if self.random.one_in(3) { self.random.below(u64::from(QUEUES)) as u8 } else { 0 };
        Place { topic, queue }
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn size(&mut self) -> u16 {
        self.random.of(&[0, 0, 20, 200, 200, 2000])
    }

    fn delay(&mut self) -> Option<u32> {
        self.random.one_in(5).then(|| self.random.of(&[0, 5, 100, 3000]))
    }

    /// A transaction: mostly one that is open, often the oldest, sometimes one long decided.
    fn name(&mut self) -> Option<(Name, u16)> {
        let old = self.random.below(self.ended.len().max(1) as u64) as usize;
        if self.begun.is_empty() || self.random.one_in(5) {
            let recent = self.ended.len().saturating_sub(1 + old % 12);
            let at = if self.random.one_in(2) { recent } else { old };
            return self.ended.get(at).copied();
        }
        let at = if self.random.one_in(2) { 0 } else { self.random.below(self.begun.len() as u64) as usize };
        self.begun.get(at).copied()
    }

    /// A step that one batch may hold together with others.
    fn record(&mut self) -> Step {
        let n = self.number();
        let to = self.place();
        match self.random.below(20) {
            0..=1 => Step::Send { n, to, size: self.size() },
            2..=3 => Step::SendOnce { n, to, id: self.random.below(4) as u8, blind: self.random.one_in(2) },
            4 => Step::SendDelayed { n, to, in_ms: self.random.of(&[0, 1, 50, 2000]) },
            5..=7 => {
                self.begun.push_back((Name::Alone(n), 1));
                Step::Prepare { n, to, size: self.size(), delay_ms: self.delay() }
            }
            8 => {
                self.begun.push_back((Name::Many(n), 1));
                Step::Join { n, sequence: 0, to, other_body: false, delay_ms: self.delay() }
            }
            9..=11 => self.join(to).unwrap_or(Step::Tick),
            12..=16 => self.end().map_or(Step::Tick, Step::End),
            17 => {
                let of: Vec<Name> = (0..=self.random.below(3)).filter_map(|_| Some(self.name()?.0)).collect();
                Step::Asked { of }
            }
            18 => self.name().map_or(Step::Tick, |(of, _)| match self.random.below(2) {
                0 => Step::Park { of },
                _ => Step::Resume { of },
            }),
            _ => Step::Tick,
        }
    }

    /// The next message of one of many; or one that came before, comes too late, or leaves one out.
    fn join(&mut self, to: Place) -> Option<Step> {
        let (name, count) = self.many()?;
        let Name::Many(n) = name else { return None };
        let sequence = match self.random.below(8) {
            0 => self.random.below(u64::from(count) + 3) as u16,
            1 => count + 1,
            _ => {
                if let Some((_, count)) = self.begun.iter_mut().find(|(begun, _)| *begun == name) {
                    *count += 1;
                }
                count
            }
        };
        let other_body = self.random.one_in(8);
        Some(Step::Join { n, sequence, to, other_body, delay_ms: self.delay() })
    }

    fn end(&mut self) -> Option<End> {
        let (of, count) = self.name()?;
        let mut end = End::plain(of, !self.random.one_in(3));
        let odd =
            |random: &mut Random| random.of(&[Claim::Wrong, Claim::Absent, Claim::Absent, Claim::Right]);
        if self.random.one_in(2) {
            end.by =
                self.random.of(&[By::Id, By::Id, By::Id, By::Id, By::Origin, By::Origin, By::WrongOffset]);
            end.who = self.random.of(&[Who::Producer, Who::Producer, Who::CheckBack, Who::Operator]);
            match self.random.below(8) {
                0 => end.group = odd(&mut self.random),
                1 => end.key = odd(&mut self.random),
                2 => end.table = odd(&mut self.random),
                3 | 4 => end.count = odd(&mut self.random),
                _ => {}
            }
        }
        if self.random.one_in(6) {
            end.moves = Some(self.moves());
        }
        // one that is not decided by this is tried again, or nothing would ever be deleted
        let decides = end.by != By::WrongOffset
            && [end.group, end.key, end.table, end.count].iter().all(|claim| *claim != Claim::Wrong);
        if let Some(at) = self.begun.iter().position(|(name, _)| decides && *name == of) {
            self.begun.remove(at);
            self.ended.push((of, count));
        }
        Some(end)
    }

    /// One with an id: keys of messages are names of another kind.
    fn many(&mut self) -> Option<(Name, u16)> {
        (0..6).find_map(|_| self.name().filter(|(name, _)| matches!(name, Name::Many(_))))
    }

    fn end_empty(&mut self) -> Step {
        let fresh = Name::Many(self.number());
        let of = if self.random.one_in(2) { fresh } else { self.many().map_or(fresh, |(name, _)| name) };
        self.ended.push((of, 0));
        Step::EndEmpty {
            of,
            commit: !self.random.one_in(3),
            moves: self.random.one_in(2).then(|| self.moves()),
        }
    }

    fn moves(&mut self) -> Moves {
        Moves {
            consumer: self.random.below(u64::from(CONSUMERS)) as u8,
            place: self.place(),
            offset: self.random.below(1000) as u32,
            client: self.random.below(u64::from(CLIENTS)) as u8,
            stale: self.random.one_in(4),
        }
    }

    fn crash(&mut self) -> Crash {
        match self.random.below(3) {
            0 => Crash::Lost,
            1 => Crash::Kept,
            _ => Crash::Torn(self.random.below(u64::MAX)),
        }
    }

    fn step(&mut self) -> Step {
        let Moves { consumer, place, offset, client, stale } = self.moves();
        match self.random.below(400) {
            0..=229 => self.record(),
            230..=249 => {
                let count = 2 + self.random.below(4);
                Step::Together((0..count).map(|_| small(self.record())).collect())
            }
            250..=253 => self.end_empty(),
            254..=279 => Step::Check {
                max: self.random.of(&[1, 3, 100, 100]),
                reply: self.random.of(&[Reply::Counted, Reply::Counted, Reply::NotCounted, Reply::Forgotten]),
            },
            280..=284 => self
                .name()
                .map_or(Step::Tick, |(of, _)| Step::Reschedule { of, in_ms: self.random.of(&[0, 10, 1000]) }),
            285..=309 => Step::Wait { ms: self.random.of(&[1, 10, 40, 500, 1500, 6000]) },
            310..=321 => Step::Report { consumer, place, offset },
            322..=325 => Step::FlushOffsets,
            326..=333 => Step::Lease {
                consumer,
                place,
                client,
                ttl_ms: self.random.of(&[100, 5000, 60_000]),
                renew: stale || offset % 4 == 0,
            },
            334..=335 => Step::Release { consumer, place, client },
            336 => match self.random.below(4) {
                0 => Step::DeleteConsumer { consumer },
                1 => Step::DeleteTopic { topic: place.topic },
                _ => Step::PutTopic { topic: place.topic, queues: 1 + (offset % u32::from(QUEUES)) as u8 },
            },
            337 => match self.random.below(3) {
                0 => Step::DeletePolicy { group: client % 2 },
                which => Step::PutPolicy { group: client % 2, which: which as u8 - 1 },
            },
            338 => Step::PutTopic { topic: place.topic, queues: 1 + (offset % u32::from(QUEUES)) as u8 },
            339 => Step::ClockBack { ms: self.random.of(&[6_000, 90_000, 7_200_000]) },
            340..=384 => Step::Sync,
            385..=387 => Step::Checkpoint,
            388..=395 => Step::Keep,
            396 => Step::Restart,
            397 => Step::Crash(self.crash()),
            398 => Step::TearWrite {
                write: 1 + self.random.below(6) as u8,
                bytes: self.random.of(&[0, 60, 200, 500, 4000, 8000]),
                crash: self.crash(),
            },
            _ => Step::DieAfter { operations: self.random.below(40) as u8, crash: self.crash() },
        }
    }

    /// Decides everything and lets it grow old, so that retention finds something to delete.
    fn drain(&mut self) {
        self.ended.extend(self.begun.drain(..));
        self.steps.push(Step::DecideAll { commit: self.random.one_in(2) });
        let ms = self.random.of(&[30_000, 90_000, 200_000]);
        self.steps.extend([
            Step::Wait { ms: 4000 },
            Step::Tick,
            Step::Sync,
            Step::Wait { ms },
            Step::Checkpoint,
        ]);
        self.steps.extend((0..8).map(|_| Step::Keep));
    }
}

/// All of a batch has to fit one frame.
fn small(mut step: Step) -> Step {
    if let Step::Send { size, .. } | Step::Prepare { size, .. } = &mut step {
        *size = (*size).min(200);
    }
    step
}
