//! The peers of `cargo xtask netlab`, which starts this program in network namespaces: peers that do what lines of text
//! say, peers that misbehave, a wire with a delay, and a plain copy to compare with.
//!
//! ```text
//! netlab_peer peer TRANSPORT IP FOLDER [UP]  an honest peer that sends UP bytes a second; commands by line
//! netlab_peer peer TRANSPORT IP FOLDER upnp  one that has its router forward a port
//! netlab_peer rogue KIND IP LEN              a provider that lies, says nothing or trickles
//! netlab_peer strangers PEER COUNT STREAMS LEN   askers that do not read what they asked for
//! netlab_peer flood KIND PEER IP RATE LEN    a stranger that keeps a peer busy
//! netlab_peer delay TAP TAP MILLIS           a wire between two devices
//! netlab_peer send IP:PORT LEN               one TCP copy, and who takes it:
//! netlab_peer receive IP:PORT
//! netlab_peer crowd COUNT                    so many peers in this process; commands by line
//! ```

mod content;

mod copy;

mod crowd;

mod delay;

mod exchange;

mod flood;

mod health;

mod peer;

mod rogue;

use std::error::Error;

use tracing::Level;

// Many peers share the processors of one machine.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    // As participants do; without one, spans that nobody asked for take a fortieth of the processor.
    tracing_subscriber::fmt().with_max_level(Level::ERROR).with_writer(std::io::stderr).init();
    match words[..] {
        ["peer", transport, ip, folder, ref more @ ..] => {
            let (mut up, mut upnp) = (None, false);
            for word in more {
                match *word {
                    "upnp" => upnp = true,
                    number => up = Some(number.parse()?),
                }
            }
            peer::run(transport, ip.parse()?, folder, up, upnp).await
        }
        ["flood", kind, peer, ip, rate, len] => {
            let target = content::peer_address(peer)?;
            flood::run(kind.parse()?, target, ip.parse()?, rate.parse()?, len.parse()?).await
        }
        ["rogue", kind, ip, len] => rogue::serve(kind.parse()?, ip.parse()?, len.parse()?).await,
        ["strangers", peer, count, streams, len] => {
            let address = content::peer_address(peer)?;
            rogue::ask(address, count.parse()?, streams.parse()?, len.parse()?).await
        }
        ["delay", one, other, millis] => Ok(delay::run(one, other, millis.parse()?)?),
        ["send", address, len] => Ok(copy::send(address, len.parse()?)?),
        ["receive", address] => Ok(copy::receive(address)?),
        ["crowd", count] => crowd::run(count.parse()?).await,
        _ => Err("see the head of examples/netlab_peer/main.rs".into()),
    }
}
