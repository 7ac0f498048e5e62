//! Finds the validator's own record on the chain.

use std::time::Duration;

use node_client::chain::ValidatorInfo;

use crate::{
    error::{Attempt as _, Result},
    handles::Handles,
};

/// How long the start waits for the hot key to be registered.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(120);

pub(super) async fn wait_for_registration(handles: &Handles) -> Result<()> {
    let look = async {
        while own_record(handles).await?.is_none() {
            tracing::info!("this hot key is not registered as a validator yet");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        Ok::<_, crate::Error>(())
    };
    tokio::time::timeout(REGISTRATION_TIMEOUT, look)
        .await
        .context("this hot key is not registered as a validator of the run")?
}

/// What the chain knows of this validator now.
pub(super) async fn own_record(handles: &Handles) -> Result<Option<ValidatorInfo>> {
    let validators = handles.chain.validators(handles.run.id, None).await?;
    Ok(validators.into_iter().find(|validator| validator.hot == handles.desk.account()))
}
