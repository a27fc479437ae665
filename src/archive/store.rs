//! Object storage: listed, read, and written without ever changing what is there.
//!
//! Every request is tried again by `object_store` itself as [`StoreSettings`] say. Credentials and endpoints
//! come as the options that its builders know, under the names of the environment's variables (`AWS_REGION`).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    ClientOptions, Error as StoreError, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt as _,
    PutMode, RetryConfig,
};
use tokio_stream::StreamExt as _;
use url::Url;

use super::error::ArchiveError;
use super::location::Location;

/// How stores are reached.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// What the environment says: `AWS_*`, `GOOGLE_*`, `AZURE_*`.
    pub options: Vec<(String, String)>,
    /// How often a request is tried again.
    pub retries: usize,
    /// Time from a request's beginning after which it is not tried again.
    pub retry_timeout: Duration,
    /// Longest silence of the other side before a request has failed.
    pub timeout: Duration,
}

impl StoreSettings {
    fn retry(&self) -> RetryConfig {
        RetryConfig {
            max_retries: self.retries,
            retry_timeout: self.retry_timeout,
            ..RetryConfig::default()
        }
    }

    /// A large object may take long, as long as it keeps coming.
    fn client(&self) -> ClientOptions {
        ClientOptions::new().with_timeout_disabled().with_read_timeout(self.timeout)
    }

    fn option(&self, name: &str) -> Option<&str> {
        let known = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        self.options.iter().find(known).map(|(_, value)| value.as_str())
    }

    /// Says what is missing before a request fails of it.
    fn check(&self) -> Result<(), ArchiveError> {
        let allowed = self.option("AWS_ALLOW_HTTP").is_some_and(|v| v.eq_ignore_ascii_case("true"));
        for name in ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"] {
            let plain = self.option(name).filter(|endpoint| endpoint.starts_with("http://"));
            if let (Some(endpoint), false) = (plain, allowed) {
                return Err(ArchiveError::Location {
                    location: format!("{name}={endpoint}"),
                    problem: "an endpoint without TLS".to_owned(),
                    remedy: "write https://, or set AWS_ALLOW_HTTP=true if it must be".to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// A place in a store.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    /// What stands before an object's key in its path: `s3://bucket/`, `/folder/`.
    base: Arc<str>,
    /// The prefix that was typed.
    prefix: Path,
    /// Whether it was typed with a slash behind it, or is the whole bucket: then it is no object.
    is_prefix: bool,
}

impl Store {
    /// Opens `location` to write below it. A folder is made if there is none.
    ///
    /// # Errors
    /// [`ArchiveError`] if it cannot be reached as things are set. A bucket is not asked yet.
    pub(super) fn open(
        location: &Location,
        settings: &StoreSettings,
    ) -> Result<Self, ArchiveError> {
        match location {
            Location::Bucket(url) => Self::bucket(url, settings),
            Location::Local(folder) => {
                let refused = |problem: String| ArchiveError::Location {
                    location: folder.display().to_string(),
                    problem,
                    remedy: "name a folder that can be made and written to".to_owned(),
                };
                std::fs::create_dir_all(folder).map_err(|error| refused(error.to_string()))?;
                // What is committed outlives a power cut.
                let inner = LocalFileSystem::new_with_prefix(folder)
                    .map_err(|error| refused(error.to_string()))?
                    .with_fsync(true);
                Ok(Self::from_parts(Arc::new(inner), &format!("{}/", folder.display())))
            }
        }
    }

    /// The store behind `inner`, from its root on.
    pub(super) fn from_parts(inner: Arc<dyn ObjectStore>, base: &str) -> Self {
        Self { inner, base: base.into(), prefix: Path::default(), is_prefix: true }
    }

    /// Opens a bucket.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn bucket(url: &Url, settings: &StoreSettings) -> Result<Self, ArchiveError> {
        // Whoever makes a client takes it from there; it is there already but for the first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let refused = |error: StoreError| ArchiveError::Location {
            location: url.to_string(),
            problem: error.to_string(),
            remedy: "set what is missing in the environment (AWS_*, GOOGLE_*, AZURE_*)".to_owned(),
        };
        let inner = match url.scheme() {
            "s3" | "s3a" => {
                settings.check()?;
                amazon(url, settings)
            }
            "gs" => google(url, settings),
            _ => azure(url, settings),
        }
        .map_err(refused)?;
        let prefix =
            Path::from_url_path(url.path()).map_err(|error| refused(StoreError::from(error)))?;
        let is_prefix = prefix.is_root() || url.path().ends_with('/');
        let base = format!("{}://{}/", url.scheme(), url.authority()).into();
        Ok(Self { inner, base, prefix, is_prefix })
    }

    /// What is listed or written below, as people write it.
    pub(super) fn shown(&self) -> String {
        format!("{}{}", self.base, self.prefix)
    }

    /// The full path of an object, as it stands in the tables.
    pub(super) fn path_of(&self, at: &Path) -> String {
        format!("{}{at}", self.base)
    }

    /// Where `name` lies below what was typed.
    pub(super) fn below(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), Path::join)
    }

    fn failed(&self, at: &Path, action: &'static str, cause: StoreError) -> ArchiveError {
        ArchiveError::Store { location: self.path_of(at), action, cause }
    }

    /// The object that was typed, if it is one and no prefix.
    ///
    /// # Errors
    /// [`ArchiveError::Store`].
    pub(super) async fn itself(&self) -> Result<Option<ObjectMeta>, ArchiveError> {
        if self.is_prefix {
            return Ok(None);
        }
        match self.inner.head(&self.prefix).await {
            Ok(meta) => Ok(Some(meta)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(cause) => Err(self.failed(&self.prefix, "look for it", cause)),
        }
    }

    /// Tells `each` of every object below `under`, page by page, in the store's order.
    ///
    /// # Errors
    /// [`ArchiveError::Store`].
    pub(super) async fn list(
        &self,
        under: &Path,
        mut each: impl FnMut(ObjectMeta),
    ) -> Result<(), ArchiveError> {
        let mut objects = self.inner.list(Some(under));
        while let Some(object) = objects.next().await {
            each(object.map_err(|cause| self.failed(under, "list it", cause))?);
        }
        Ok(())
    }

    /// What was typed, listed.
    ///
    /// # Errors
    /// [`ArchiveError::Store`].
    pub(super) async fn list_all(&self, each: impl FnMut(ObjectMeta)) -> Result<(), ArchiveError> {
        let prefix = self.prefix.clone();
        self.list(&prefix, each).await
    }

    /// Begins to read an object: its size is known before its bytes come.
    ///
    /// # Errors
    /// What the store says.
    pub(super) async fn get(&self, at: &Path) -> Result<GetResult, StoreError> {
        self.inner.get(at).await
    }

    /// An object, whole.
    ///
    /// # Errors
    /// [`ArchiveError::Store`].
    pub(super) async fn read(&self, at: &Path) -> Result<Bytes, ArchiveError> {
        let failed = |cause| self.failed(at, "read it", cause);
        self.inner.get(at).await.map_err(failed)?.bytes().await.map_err(failed)
    }

    /// Puts an object if there is none of its name; false if there is.
    ///
    /// # Errors
    /// [`ArchiveError::Store`].
    pub(super) async fn create(&self, at: &Path, bytes: Bytes) -> Result<bool, ArchiveError> {
        match self.inner.put_opts(at, bytes.into(), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Ok(false),
            Err(cause) => Err(self.failed(at, "write it", cause)),
        }
    }
}

/// Hands the options that a builder knows over to it.
macro_rules! configured {
    ($builder:expr, $settings:expr, $prefix:literal) => {{
        let builder =
            $builder.with_retry($settings.retry()).with_client_options($settings.client());
        $settings.options.iter().fold(builder, |builder, (name, value)| {
            let key = name.to_ascii_lowercase();
            match key.starts_with($prefix).then(|| key.parse()) {
                Some(Ok(key)) => builder.with_config(key, value),
                _ => builder,
            }
        })
    }};
}

fn amazon(url: &Url, settings: &StoreSettings) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let builder = AmazonS3Builder::new().with_url(url.to_string());
    Ok(Arc::new(configured!(builder, settings, "aws_").build()?))
}

fn google(url: &Url, settings: &StoreSettings) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let builder = GoogleCloudStorageBuilder::new().with_url(url.to_string());
    Ok(Arc::new(configured!(builder, settings, "google_").build()?))
}

fn azure(url: &Url, settings: &StoreSettings) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let builder = MicrosoftAzureBuilder::new().with_url(url.to_string());
    Ok(Arc::new(configured!(builder, settings, "azure_").build()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(options: &[(&str, &str)]) -> StoreSettings {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        StoreSettings {
            options: options.iter().map(own).collect(),
            retries: 0,
            retry_timeout: Duration::ZERO,
            timeout: Duration::from_secs(1),
        }
    }

    fn open(text: &str, options: &[(&str, &str)]) -> Result<Store, ArchiveError> {
        Store::open(&text.parse().unwrap(), &settings(options))
    }

    #[test]
    fn paths_are_what_was_typed_and_the_key() {
        let store = open("s3://calls/2026/a%20b/", &[]).unwrap();
        assert_eq!(store.shown(), "s3://calls/2026/a b");
        let at = store.below("clips/part.parquet");
        assert_eq!(store.path_of(&at), "s3://calls/2026/a b/clips/part.parquet");
        assert!(store.is_prefix && open("s3://calls", &[]).unwrap().is_prefix);
        assert!(!open("s3://calls/a.wav", &[]).unwrap().is_prefix);
    }

    #[test]
    fn every_cloud_is_built_in() {
        open("gs://calls/x", &[("GOOGLE_SKIP_SIGNATURE", "true")]).unwrap();
        let azure = [("AZURE_STORAGE_ACCOUNT_NAME", "a"), ("AZURE_SKIP_SIGNATURE", "true")];
        open("az://calls/x", &azure).unwrap();
        let error = open("az://calls/x", &[]).unwrap_err().to_string();
        assert!(error.contains("AZURE_"), "{error}");
    }

    #[test]
    fn an_endpoint_without_tls_must_be_meant() {
        let endpoint = ("AWS_ENDPOINT_URL", "http://127.0.0.1:9000");
        let error = open("s3://calls", &[endpoint]).unwrap_err().to_string();
        assert!(error.contains("AWS_ALLOW_HTTP=true"), "{error}");
        open("s3://calls", &[endpoint, ("AWS_ALLOW_HTTP", "true")]).unwrap();
    }

    #[tokio::test]
    async fn what_is_there_is_not_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder.path().display().to_string(), &[]).unwrap();
        let at = store.below("a/b");
        assert!(store.create(&at, "one".into()).await.unwrap());
        assert!(!store.create(&at, "two".into()).await.unwrap());
        assert_eq!(store.read(&at).await.unwrap(), "one");
        let mut listed = Vec::new();
        store.list(&store.below("a"), |meta| listed.push(meta.location.to_string())).await.unwrap();
        assert_eq!(listed, ["a/b"]);
        store.list(&store.below("nothing"), |_| panic!("nothing is there")).await.unwrap();
    }
}
