//! Opens a mirror where a configuration says it is.

use std::{fmt, sync::Arc, time::Duration};

use object_store::{
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
    ClientOptions, RetryConfig,
};

use super::Mirror;

/// How long a reader waits for one more byte. Peers are asked beside it.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long one request may take in all. The largest writes 30 MB: 100 kB/s.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);

/// What in the environment says who asks.
const CREDENTIALS: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
];

/// Why there is no mirror at a place. Change the configuration.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The address is none.
    #[error("{url:?} is not of the form s3://bucket/folder")]
    Url {
        /// What was given.
        url: String,
    },
    /// The service's address is none.
    #[error("the endpoint {endpoint:?} begins with neither https:// nor http://")]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
    /// Nobody may write without a name.
    #[error("to copy to a mirror takes credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")]
    NoCredentials,
    /// Settings and environment do not fit together.
    #[error("mirror: {0}")]
    Settings(String),
}

/// Where a mirror is. Credentials come from the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
/// `AWS_SESSION_TOKEN`, and what containers are given); without any it is read without.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MirrorPlace {
    /// `s3://bucket/folder`.
    pub url: String,
    /// Address of an S3-compatible service, `https://…`; `http://…` sends all in the clear. `None` for the one of the
    /// environment (`AWS_ENDPOINT_URL`), or Amazon's.
    pub endpoint: Option<String>,
    /// Its region; `None` for the one of the environment.
    pub region: Option<String>,
    /// Key and secret in the place of the environment's, for tests and for programs that keep them elsewhere.
    pub credentials: Option<(String, String)>,
}

/// Without the credentials.
impl fmt::Debug for MirrorPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MirrorPlace")
            .field("url", &self.url)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

impl MirrorPlace {
    /// Whether anything says who asks.
    fn has_credentials(&self) -> bool {
        let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        self.credentials.is_some() || CREDENTIALS.iter().any(is_set)
    }

    fn client(
        &self,
        bucket: &str,
        options: ClientOptions,
        tries: usize,
    ) -> Result<AmazonS3, PlaceError> {
        let is_plain = self.endpoint.as_ref().is_some_and(|url| url.starts_with("http://"));
        let retry = RetryConfig {
            max_retries: tries.saturating_sub(1),
            retry_timeout: REQUEST_TIMEOUT,
            ..Default::default()
        };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_retry(retry)
            // It takes the place of the other options, so it comes first.
            .with_client_options(options)
            .with_allow_http(is_plain);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        if let Some((key, secret)) = &self.credentials {
            builder = builder.with_access_key_id(key).with_secret_access_key(secret);
        }
        if !self.has_credentials() {
            builder = builder.with_skip_signature(true);
        }
        builder.build().map_err(|error| PlaceError::Settings(error.to_string()))
    }
}

impl Mirror {
    /// The mirror in `folder` of the place. Asks nobody yet.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub fn open(place: &MirrorPlace, folder: &str) -> Result<Self, PlaceError> {
        let wrong = || PlaceError::Url { url: place.url.clone() };
        let (bucket, prefix) = {
            let rest = place.url.strip_prefix("s3://").ok_or_else(wrong)?;
            rest.split_once('/').unwrap_or((rest, ""))
        };
        if bucket.is_empty() {
            return Err(wrong());
        }
        if let Some(endpoint) = &place.endpoint {
            if !endpoint.starts_with("https://") && !endpoint.starts_with("http://") {
                return Err(PlaceError::Endpoint { endpoint: endpoint.clone() });
            }
        }
        // rustls refuses to guess where two are linked; a program has chosen at its start.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options = ClientOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_timeout(REQUEST_TIMEOUT);
        // A time-out for reading would end a write that takes long.
        let reads = place.client(bucket, options.clone().with_read_timeout(READ_TIMEOUT), 2)?;
        let writes = place.client(bucket, options, 1)?;
        let parts = prefix.split('/').chain(folder.split('/')).filter(|part| !part.is_empty());
        let folder = parts.fold(Path::default(), |path, part| path.join(part));
        let name = format!("s3://{bucket}/{folder}");
        Ok(Self::new(name, folder, Arc::new(reads), Arc::new(writes)))
    }

    /// [`Mirror::open`] and [`Mirror::copied_to`].
    ///
    /// # Errors
    /// [`PlaceError`]; also if nothing says who writes.
    pub fn open_to_copy(
        place: &MirrorPlace,
        folder: &str,
        up_bytes_per_second: Option<u64>,
    ) -> Result<Self, PlaceError> {
        if !place.has_credentials() {
            return Err(PlaceError::NoCredentials);
        }
        Ok(Self::open(place, folder)?.copied_to(up_bytes_per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: &str, endpoint: Option<&str>) -> MirrorPlace {
        let credentials = Some(("key".to_owned(), "secret".to_owned()));
        MirrorPlace {
            url: url.to_owned(),
            endpoint: endpoint.map(str::to_owned),
            region: None,
            credentials,
        }
    }

    #[test]
    fn a_place_is_a_bucket_and_a_folder_of_a_service() {
        let mirror = Mirror::open(&place("s3://bucket/gauntlet/", None), "0xff/3").unwrap();
        assert_eq!(mirror.name(), "s3://bucket/gauntlet/0xff/3");
        assert!(!mirror.is_copied_to());
        let mirror = Mirror::open(&place("s3://bucket", Some("http://127.0.0.1:9")), "").unwrap();
        assert_eq!(mirror.name(), "s3://bucket/");
        for url in ["bucket", "s3://", "s3:///folder", "https://host/bucket"] {
            let opened = Mirror::open(&place(url, None), "");
            assert!(matches!(opened, Err(PlaceError::Url { .. })), "{url}");
        }
        let opened = Mirror::open(&place("s3://bucket", Some("host:9")), "");
        assert!(matches!(opened, Err(PlaceError::Endpoint { .. })));
    }

    #[test]
    fn secrets_are_not_shown() {
        let place = place("s3://bucket", None);
        let mirror = Mirror::open(&place, "").unwrap();
        assert!(!format!("{place:?} {mirror:?}").contains("secret"));
    }
}
