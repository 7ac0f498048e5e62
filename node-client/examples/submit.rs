//! Claims what an account earned in a run and waits until that is final:
//! `submit ws://127.0.0.1:9944 //Alice RUN [ADDRESS]`, for the signer without an address.

use node_client::{
    chain::{connect, Call, Chain},
    keys,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let url = args.next().ok_or("give the node's ws url")?;
    let signer = keys::keypair_from_uri(&args.next().ok_or("give the signer's secret URI")?)?;
    let run = args.next().ok_or("give the number of the run")?.parse()?;
    let account = match args.next() {
        Some(address) => keys::account_from_address(&address)?,
        None => keys::account(&signer),
    };
    let chain = connect(&[url]).await?;
    let included = chain.submit(&signer, Call::Claim { run, account }).await?;
    println!("final in block {}", included.block.number);
    for event in included.events {
        println!("{event:?}");
    }
    println!("balance {} planck", chain.balance(account, None).await?);
    Ok(())
}
