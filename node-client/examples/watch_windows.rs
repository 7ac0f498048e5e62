//! Prints what a run's windows came to, as their blocks are finalised: `watch_windows ws://127.0.0.1:9944`.

use futures::StreamExt;
use node_client::chain::{connect, Chain, GauntletEvent};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).ok_or("give the node's ws url")?;
    let chain = connect(&[url]).await?;
    let mut blocks = chain.subscribe_finalized().await?;
    while let Some(block) = blocks.next().await {
        for event in chain.events_at(block.hash).await? {
            match event {
                GauntletEvent::WindowOpened { run, window, .. } => {
                    println!("#{} run {run} window {window}: open", block.number);
                }
                GauntletEvent::WindowAccepted {
                    run,
                    window,
                    accepted,
                    ..
                } => println!(
                    "#{} run {run} window {window}: accepted {accepted:?}",
                    block.number
                ),
                GauntletEvent::WindowSettled {
                    run,
                    window,
                    minted,
                    paid,
                    ..
                } => println!(
                    "#{} run {run} window {window}: minted {minted}, miners {}, validators {} planck",
                    block.number, paid.miners, paid.validators
                ),
                _ => {}
            }
        }
    }
    Ok(())
}
