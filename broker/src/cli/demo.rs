//! `mezzo demo`: what Mezzo is for, played in the terminal within half a minute: a commit, a rollback, a producer that
//! dies and is checked back, one that never answers, is parked and decided by a person. Nothing outside a temporary
//! folder is touched.

mod stage;

use mezzo_client::{
    Client, LocalError, LocalOutcome, ReceivedMessage, TransactionProducer,
    admin::{Decided, TransactionOutcome, TransactionState},
};

use self::stage::{Stage, Teller, message};
use super::{banner::program, cluster::Failure};

const INTRODUCTION: &str = "\
Mezzo, demonstrated: a broker with short timeouts in a temporary folder, one topic, one consumer.
A transaction is a message that appears if, and only if, its producer's local transaction commits.
";

/// Where to go from here, with the program called as it was called now.
fn next(program: &str) -> String {
    let steps = [
        ("serve", "a broker of your own, data in ./mezzo-data"),
        ("tail orders", "in a second terminal: what arrives"),
        ("send orders 'one coffee'", "in a third"),
        ("tx list", "transactions that wait for a decision"),
    ];
    let width = steps.iter().map(|(step, _)| step.len()).max().unwrap_or_default();
    let steps = steps.map(|(step, what)| format!("  {program} {step:width$}   {what}"));
    format!(
        "\nWhat to try next\n{}\n\nREADME.md has a first transaction of your own in Rust, Python and Node;\n\
         docs/transactions.md says what is guaranteed, and what is not.",
        steps.join("\n")
    )
}

impl From<mezzo_client::TransactionError> for Failure {
    fn from(error: mezzo_client::TransactionError) -> Self {
        Self::new(error.to_string())
    }
}

/// Plays it.
pub(super) async fn run() -> Result<(), Failure> {
    let teller = Teller::new();
    teller.print(INTRODUCTION);
    let mut stage = Stage::set(teller).await?;
    let played = tokio::select! {
        played = play(&mut stage) => played,
        _ = tokio::signal::ctrl_c() => Err(Failure::new("ended by ctrl-C; nothing is left behind")),
    };
    let cleared = stage.clear().await;
    played?;
    cleared?;
    teller.print(&next(program()));
    Ok(())
}

async fn play(stage: &mut Stage) -> Result<(), Failure> {
    committed(stage).await?;
    rolled_back(stage).await?;
    checked_back(stage).await?;
    parked(stage).await
}

/// Joins `group`; says it when the broker asks, and answers `answer`.
async fn producer(
    client: &Client,
    group: &str,
    teller: Teller,
    answer: LocalOutcome,
    words: &'static str,
) -> Result<TransactionProducer, Failure> {
    let handler = move |half: ReceivedMessage| {
        let body = String::from_utf8_lossy(half.body()).into_owned();
        teller.say("broker", &format!("asks: what became of \"{body}\"?"));
        teller.say("producer", words);
        async move { Ok::<_, LocalError>(answer) }
    };
    Ok(client.transaction_producer(group).check_back(handler).start().await?)
}

async fn committed(stage: &mut Stage) -> Result<(), Failure> {
    let teller = stage.teller;
    teller.print("\n1. A commit");
    let client = stage.process().await?;
    let producer = producer(&client, "order-service", teller, LocalOutcome::Unknown, "does not know").await?;
    let prepared = producer.prepare(message("one espresso")?).await?;
    let origin = prepared.ids().offset_message_id.physical_offset;
    teller.say("producer", "prepares \"one espresso\": stored on the disk, nobody can read it");
    teller.say("producer", "writes the order into its database");
    teller.say("producer", "says commit");
    let outcome = prepared.commit().await?;
    teller.say(
        "broker",
        if outcome.is_committed() { "has it on the disk: committed" } else { "did not confirm" },
    );
    stage.arrival("one espresso").await?;
    stage.timeline(origin, TransactionState::Committed).await?;
    producer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn rolled_back(stage: &mut Stage) -> Result<(), Failure> {
    let teller = stage.teller;
    teller.print("\n2. A rollback");
    let client = stage.process().await?;
    let producer = producer(&client, "order-service", teller, LocalOutcome::Unknown, "does not know").await?;
    let prepared = producer.prepare(message("ten thousand espressi")?).await?;
    let origin = prepared.ids().offset_message_id.physical_offset;
    teller.say("producer", "prepares \"ten thousand espressi\"");
    teller.say("producer", "its database refuses the order: says rollback");
    let outcome = prepared.rollback().await?;
    teller.say(
        "broker",
        if outcome.is_rolled_back() { "rolled back; nobody will ever read it" } else { "did not confirm" },
    );
    stage.timeline(origin, TransactionState::RolledBack).await?;
    producer.shutdown().await;
    client.shutdown().await;
    Ok(())
}

async fn checked_back(stage: &mut Stage) -> Result<(), Failure> {
    let teller = stage.teller;
    teller.print("\n3. A producer dies between its database and the broker");
    let first = stage.process().await?;
    let dying = producer(&first, "checkout", teller, LocalOutcome::Unknown, "does not know").await?;
    let prepared = dying.prepare(message("two croissants")?).await?;
    let origin = prepared.ids().offset_message_id.physical_offset;
    teller.say("producer", "prepares \"two croissants\", writes the order into its database, commits there");
    // its connections go first, so that nothing it does any more reaches the broker
    first.shutdown().await;
    drop((prepared, dying, first));
    teller.say("producer", "dies before it can say so");
    let second = stage.process().await?;
    let words = "another process of the group: the database has the order, commit";
    let heir = producer(&second, "checkout", teller, LocalOutcome::Commit, words).await?;
    stage.arrival("two croissants").await?;
    stage.timeline(origin, TransactionState::Committed).await?;
    heir.shutdown().await;
    second.shutdown().await;
    Ok(())
}

async fn parked(stage: &mut Stage) -> Result<(), Failure> {
    let teller = stage.teller;
    teller.print("\n4. Nobody knows: the transaction is parked, never dropped, and a person decides");
    let client = stage.process().await?;
    let producer = producer(&client, "forgetful", teller, LocalOutcome::Unknown, "does not know").await?;
    let prepared = producer.prepare(message("a cake")?).await?;
    let origin = prepared.ids().offset_message_id.physical_offset;
    teller.say("producer", "prepares \"a cake\", and never decides");
    let _undecided = prepared.leave_open();
    stage.timeline(origin, TransactionState::InDoubt).await?;
    teller.say("operator", &format!("mezzo tx commit {origin} --reason 'the cake is baked'"));
    let (broker, commit) = (&stage.broker_address, TransactionOutcome::Committed);
    let decided = stage.admin.decide(broker, origin, commit, Some("the cake is baked"), false).await?;
    if !matches!(decided, Decided::Now(_)) {
        return Err(Failure::new(format!("transaction {origin} could not be decided: {decided:?}")));
    }
    stage.arrival("a cake").await?;
    stage.timeline(origin, TransactionState::Committed).await?;
    producer.shutdown().await;
    client.shutdown().await;
    Ok(())
}
