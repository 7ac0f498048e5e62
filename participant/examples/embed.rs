//! Runs a miner inside another program, which follows what it does: `embed URL DATA FOLDER HOT COLD [WINDOWS]`.
//!
//! URL is a node's WebSocket address, DATA the folder of the run's data set, FOLDER where the miner keeps its files, HOT and
//! COLD are secret URIs of accounts with a balance. It ends once WINDOWS updates (1 if not said) are revealed.

use std::env;

use futures::StreamExt;
use node_client::keys;
use participant::{open, settings::Participant, Error, Event, Miner};
use trainer::ModelConfig;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let args: Vec<String> = env::args().skip(1).collect();
    let [url, data, folder, hot, cold, rest @ ..] = &args[..] else {
        eprintln!("usage: embed URL DATA FOLDER HOT COLD [WINDOWS]");
        return Err(Error::Unfit("five arguments are needed".into()));
    };
    let windows = rest.first().and_then(|text| text.parse().ok()).unwrap_or(1);

    let mut settings =
        Participant::new(folder, ModelConfig::preset("nano")?, data, keys::keypair_from_uri(hot)?);
    settings.urls = vec![url.clone()];
    settings.cold = Some(keys::keypair_from_uri(cold)?);
    settings.threads = 1;
    let surroundings = open::connect(&settings).await?;
    let miner = Miner::open(settings, surroundings).await?;
    let mut events = miner.events();

    // The other work of this program: it counts the updates that were revealed.
    let other_work = async move {
        let mut revealed = 0;
        while let Some(event) = events.next().await {
            println!("{event:?}");
            if matches!(event, Event::Revealed { .. }) {
                revealed += 1;
            }
            if revealed == windows {
                return;
            }
        }
    };
    miner.run(other_work).await
}
