//! Where recordings are and tables go: paths and URLs, parsed.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

use super::error::ArchiveError;

/// The schemes that name a bucket.
const BUCKETS: [&str; 8] = ["s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss"];

/// A place that was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// On this machine.
    Local(PathBuf),
    /// In a bucket.
    Bucket(Url),
}

impl Location {
    fn refuse(text: &str, problem: &str, remedy: &str) -> ArchiveError {
        ArchiveError::Location {
            location: text.to_owned(),
            problem: problem.to_owned(),
            remedy: remedy.to_owned(),
        }
    }

    fn parse_url(text: &str) -> Result<Self, ArchiveError> {
        let url = Url::parse(text).map_err(|error| {
            Self::refuse(text, &error.to_string(), "write scheme://bucket/prefix, or a path")
        })?;
        if url.query().is_some() || url.fragment().is_some() {
            let remedy = "write ? as %3F and # as %23 where they belong to a name";
            return Err(Self::refuse(text, "a query or fragment has no meaning here", remedy));
        }
        if url.password().is_some() {
            let remedy = "put credentials into the environment";
            return Err(Self::refuse("the URL", "a password must not stand in it", remedy));
        }
        if url.scheme() == "file" {
            let path = url.to_file_path().map_err(|()| {
                Self::refuse(text, "it names no file of this machine", "write file:///folder")
            })?;
            return Ok(Self::Local(path));
        }
        if !BUCKETS.contains(&url.scheme()) {
            let remedy = "write s3://, gs://, az://, abfs://, abfss:// or file:///, or a path of this machine";
            return Err(Self::refuse(text, "such a scheme is not known", remedy));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(Self::refuse(text, "it names no bucket", "write scheme://bucket/prefix"));
        }
        Ok(Self::Bucket(url))
    }
}

impl FromStr for Location {
    type Err = ArchiveError;

    fn from_str(text: &str) -> Result<Self, ArchiveError> {
        if text.contains("://") {
            return Self::parse_url(text);
        }
        Ok(Self::Local(text.into()))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => path.display().fmt(f),
            Self::Bucket(url) => url.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_paths_and_file_urls_become_them() {
        for (text, path) in [
            ("calls", "calls"),
            ("/data/a b.wav", "/data/a b.wav"),
            ("./x:y", "./x:y"),
            ("file:///data/a%20b", "/data/a b"),
        ] {
            assert_eq!(text.parse::<Location>().unwrap(), Location::Local(path.into()));
        }
    }

    #[test]
    fn buckets_of_all_clouds_are_known() {
        for text in
            ["s3://b", "s3://b/p/", "gs://b/p", "az://c/p", "abfss://c@a.dfs.core.windows.net/p"]
        {
            assert!(matches!(text.parse(), Ok(Location::Bucket(_))), "{text}");
        }
    }

    #[test]
    fn what_is_no_location_is_refused_with_what_would_be() {
        for (text, says) in [
            ("http://host/x", "s3://"),
            ("ftp://host/x", "s3://"),
            ("s3:///x", "names no bucket"),
            ("s3://b/x?y=z", "%3F"),
            ("s3://b/x#y", "%23"),
            ("s3://key:planted@b/x", "environment"),
            ("file://host/x", "file:///"),
        ] {
            let error = text.parse::<Location>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
            assert!(!error.contains("planted"), "{error}");
        }
    }
}
