//! Copies of delivered files, and uploaded reference images, in storage that we control, behind signed URLs.
//!
//! Invariants:
//! - A key names a complete file or nothing: files are written elsewhere, synced, then renamed into place.
//! - Collecting the same output again gives the same key and the same description, whatever crashed in between.
//! - What a file is, is looked up in its bytes; only image, video and audio formats that browsers show without running
//!   anything are kept.
//! - A file is served only for a signature of this server, and only from below the storage's folder.

mod dimensions;
mod sign;
mod sniff;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;

pub use sign::LinkRefused;

use aws_lc_rs::digest::{Context, SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use thiserror::Error;
use tokio::fs::{self, File};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tracing::warn;
use uuid::Uuid;
use velro_plugin::{Output, Source};

use crate::clock::Micros;
use crate::config::Config;
use crate::generation::StoredOutput;
use crate::id::{GenerationId, UserId};
use crate::provider::LoadedProvider;
use crate::upstream::{DownloadError, Upstream};
use sign::Signer;
use sniff::Format;

/// As much of a file as its format and dimensions are looked for in, in bytes.
const HEAD_BYTES: usize = 256 << 10;

/// The storage of files: a local folder.
pub struct Outputs {
    root: PathBuf,
    signer: Signer,
    max_output_bytes: u64,
    max_upload_bytes: u64,
    /// `PUBLIC_URL` is set, so that providers can fetch what our links name.
    links_reach_us: bool,
}

/// Why an output could not be copied; texts are for the operator.
#[derive(Debug, Error)]
pub enum CollectError {
    /// Another try may succeed.
    #[error("{0}")]
    Retryable(String),
    /// It would fail again: the output is not usable.
    #[error("{0}")]
    Permanent(String),
}

/// Why an upload was not stored; the texts are for the client.
#[derive(Debug, Error)]
pub enum UploadError {
    /// Larger than the operator allows.
    #[error("the file is larger than {0} bytes")]
    TooLarge(u64),
    /// Not an image we accept.
    #[error("the file must be a PNG, JPEG, WebP or GIF image")]
    NotAnImage,
    /// The disk's fault.
    #[error("the file could not be stored")]
    Disk(#[from] io::Error),
}

impl From<io::Error> for CollectError {
    fn from(error: io::Error) -> Self {
        CollectError::Retryable(format!("output storage: {error}"))
    }
}

impl From<DownloadError> for CollectError {
    fn from(error: DownloadError) -> Self {
        match error {
            DownloadError::Retryable(text) => CollectError::Retryable(text),
            DownloadError::Permanent(text) => CollectError::Permanent(text),
        }
    }
}

impl Outputs {
    /// Storage below `data_dir/outputs`, which is created.
    pub fn new(config: &Config) -> io::Result<Self> {
        let signer = Signer::new(&config.jwt_secret, &config.public_url, config.output_url_ttl);
        Outputs::at(
            &config.data_dir,
            signer,
            config.max_output_bytes,
            config.max_upload_bytes,
        )
        .map(|outputs| Outputs {
            links_reach_us: config.public_url_is_set,
            ..outputs
        })
    }

    fn at(data_dir: &Path, signer: Signer, max_output_bytes: u64, max_upload_bytes: u64) -> io::Result<Self> {
        let root = data_dir.join("outputs");
        std::fs::create_dir_all(&root)?;
        Ok(Outputs {
            root,
            signer,
            max_output_bytes,
            max_upload_bytes,
            links_reach_us: false,
        })
    }

    /// Copies one output of a generation into the storage. May be repeated: a copy that is there already is described
    /// again without fetching it.
    ///
    /// `answer_body` is the provider's last answer, for outputs that are in it.
    pub async fn collect(
        &self,
        upstream: &Upstream,
        provider: &LoadedProvider,
        generation_id: GenerationId,
        index: u32,
        output: &Output,
        answer_body: Option<&[u8]>,
    ) -> Result<StoredOutput, CollectError> {
        let folder = self.root.join(generation_id.to_string());
        let stem = format!("{index}-{}", source_mark(&output.source, answer_body));
        if let Some(name) = find(&folder, &stem).await? {
            return self
                .describe(&folder.join(&name), format!("{generation_id}/{name}"), index)
                .await;
        }
        create_folder(&folder).await?;
        let part = Part::new(&folder);
        let mut file = File::create(&part.path).await?;
        match &output.source {
            Source::Url(url) => drop(
                upstream
                    .download(provider, url, self.max_output_bytes, &mut file)
                    .await?,
            ),
            other => {
                let bytes = inline_bytes(other, answer_body)?;
                if bytes.len() as u64 > self.max_output_bytes {
                    return Err(too_large(self.max_output_bytes));
                }
                file.write_all(&bytes).await?;
            }
        }
        file.flush().await?;
        let head = read_head(&part.path).await?;
        let format = Format::of(&head).ok_or_else(|| {
            CollectError::Permanent(format!(
                "output {index} is not an image, video or audio file of a known format"
            ))
        })?;
        if matches!(output.kind.as_str(), "image" | "video" | "audio") && format.kind() != output.kind {
            return Err(CollectError::Permanent(format!(
                "output {index} should be {} and is {}",
                output.kind, format.content_type
            )));
        }
        file.sync_all().await?;
        drop(file);
        let name = format!("{stem}.{}", format.extension);
        let target = folder.join(&name);
        fs::rename(&part.path, &target).await?;
        sync_folder(&folder).await?;
        self.describe(&target, format!("{generation_id}/{name}"), index).await
    }

    async fn describe(&self, path: &Path, key: String, index: u32) -> Result<StoredOutput, CollectError> {
        let mut file = File::open(path).await?;
        let mut hash = Context::new(&SHA256);
        let mut head = Vec::new();
        let mut bytes = 0_u64;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = file.read(&mut buffer).await?;
            if n == 0 {
                break;
            }
            bytes += n as u64;
            hash.update(&buffer[..n]);
            head.extend_from_slice(&buffer[..n.min(HEAD_BYTES - head.len())]);
        }
        let format = Format::of(&head)
            .ok_or_else(|| CollectError::Permanent(format!("the stored file `{key}` is not of a known format")))?;
        let (width, height) = dimensions::read(&head).unzip();
        Ok(StoredOutput {
            index,
            key,
            content_type: format.content_type.to_owned(),
            bytes,
            sha256: hex::encode(hash.finish()),
            width,
            height,
        })
    }

    /// The absolute URL of a file, valid for the configured time at least. It stays the same for a while, so that it
    /// can be cached.
    pub fn sign(&self, key: &str, now: Micros) -> String {
        self.signer.url(key, now)
    }

    /// The file behind a signed URL's parts. `exp` and `sig` as in the query.
    pub fn verify(&self, key: &str, exp: &str, sig: &str, now: Micros) -> Result<PathBuf, LinkRefused> {
        self.signer.verify(key, exp, sig, now)?;
        self.path(key).ok_or(LinkRefused::Signature)
    }

    /// The content type of a key, by its extension, which was given by the file's bytes.
    pub fn content_type(key: &str) -> &'static str {
        let extension = key.rsplit_once('.').map(|(_, e)| e).unwrap_or_default();
        Format::by_extension(extension).map_or("application/octet-stream", |f| f.content_type)
    }

    /// Where a key's file lies; `None` for a text that no key of ours can be.
    pub fn path(&self, key: &str) -> Option<PathBuf> {
        let plain = |segment: &str| {
            (1..=100).contains(&segment.len())
                && !segment.starts_with('.')
                && segment
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        let segments: Vec<&str> = key.split('/').collect();
        ((2..=4).contains(&segments.len()) && segments.iter().all(|s| plain(s))).then(|| {
            segments
                .iter()
                .fold(self.root.clone(), |path, segment| path.join(segment))
        })
    }

    /// Whether a file is there. An error when the storage itself does not answer: that says nothing about the file.
    pub async fn has(&self, key: &str) -> io::Result<bool> {
        match self.path(key) {
            Some(path) => fs::try_exists(path).await,
            None => Ok(false),
        }
    }

    /// Deletes files; what is not there is no error. Empty folders go with them.
    pub async fn remove<K: AsRef<str>>(&self, keys: &[K]) -> io::Result<()> {
        for key in keys {
            let Some(path) = self.path(key.as_ref()) else {
                warn!(key = key.as_ref(), "not a key of the output storage");
                continue;
            };
            match fs::remove_file(&path).await {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            if let Some(folder) = path.parent().filter(|f| *f != self.root) {
                // Fails while there is something in it, as it should.
                let _ = fs::remove_dir(folder).await;
            }
        }
        Ok(())
    }

    /// Deletes every image that `user` has uploaded.
    pub async fn remove_uploads(&self, user: UserId) -> io::Result<()> {
        match fs::remove_dir_all(self.root.join("uploads").join(user.to_string())).await {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// What to send to a provider in place of a link to an upload of `owner`: a fresh link, because the job may have
    /// waited longer than the first one holds, or the image itself when providers cannot reach us. `None` when the URL
    /// is no such link, which includes links to other people's uploads.
    pub async fn for_provider(&self, url: &str, owner: UserId, now: Micros) -> io::Result<Option<String>> {
        let key = self
            .signer
            .key_of(url)
            .filter(|k| k.starts_with(&format!("uploads/{owner}/")));
        let Some((key, path)) = key.and_then(|k| Some((k, self.path(k)?))) else {
            return Ok(None);
        };
        if self.links_reach_us {
            return Ok(Some(self.sign(key, now)));
        }
        let bytes = fs::read(path).await?;
        Ok(Some(format!(
            "data:{};base64,{}",
            Self::content_type(key),
            STANDARD.encode(bytes)
        )))
    }

    /// Stores a user's reference image and answers its key. Storing the same bytes again gives the same key.
    pub async fn store_upload(&self, user: UserId, bytes: &[u8]) -> Result<String, UploadError> {
        if bytes.len() as u64 > self.max_upload_bytes {
            return Err(UploadError::TooLarge(self.max_upload_bytes));
        }
        let format = Format::of(bytes)
            .filter(|f| f.is_reference() && dimensions::read(bytes).is_some())
            .ok_or(UploadError::NotAnImage)?;
        let hash = hex::encode(digest(&SHA256, bytes));
        let name = format!("{}.{}", &hash[..32], format.extension);
        let folder = self.root.join("uploads").join(user.to_string());
        let key = format!("uploads/{user}/{name}");
        let target = folder.join(&name);
        if fs::try_exists(&target).await? {
            return Ok(key);
        }
        create_folder(&folder).await?;
        let part = Part::new(&folder);
        let mut file = File::create(&part.path).await?;
        file.write_all(bytes).await?;
        file.sync_all().await?;
        drop(file);
        fs::rename(&part.path, &target).await?;
        sync_folder(&folder).await?;
        Ok(key)
    }
}

/// A file that is being written. It disappears with this value unless it was renamed before.
struct Part {
    path: PathBuf,
}

impl Part {
    fn new(folder: &Path) -> Self {
        Part {
            path: folder.join(format!(".{}.part", Uuid::new_v4().as_simple())),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Renamed: there is nothing to remove. One quick call, on the way out only.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Tells outputs of different attempts apart, so that one is never taken for the other.
fn source_mark(source: &Source, answer_body: Option<&[u8]>) -> String {
    let mut hash = Context::new(&SHA256);
    match source {
        Source::Url(url) => hash.update(url.as_bytes()),
        Source::Text(text) => hash.update(text.as_bytes()),
        Source::Json(value) => hash.update(value.to_string().as_bytes()),
        Source::BodyBase64(pointer) => hash.update(pointer.as_bytes()),
        Source::Body => {}
    }
    if matches!(source, Source::Body | Source::BodyBase64(_)) {
        hash.update(answer_body.unwrap_or_default());
    }
    hex::encode(&hash.finish().as_ref()[..4])
}

fn inline_bytes(source: &Source, answer_body: Option<&[u8]>) -> Result<Vec<u8>, CollectError> {
    let permanent = |text: &str| CollectError::Permanent(text.to_owned());
    let body = || answer_body.ok_or_else(|| permanent("the answer that held the output is gone"));
    match source {
        Source::Body => Ok(body()?.to_vec()),
        Source::BodyBase64(pointer) => {
            let answer: Value = serde_json::from_slice(body()?).map_err(|_| permanent("the answer is not JSON"))?;
            let text = answer.pointer(pointer).and_then(Value::as_str);
            let text = text.ok_or_else(|| permanent("the answer has no text where the output should be"))?;
            // Some APIs put a whole data URL there.
            let text = text.split_once("base64,").map_or(text, |(_, rest)| rest);
            STANDARD
                .decode(text)
                .map_err(|_| permanent("the output is not valid Base64"))
        }
        Source::Url(_) | Source::Text(_) | Source::Json(_) => Err(permanent("the output is not a file")),
    }
}

/// The finished file of a stem, if there is one.
async fn find(folder: &Path, stem: &str) -> io::Result<Option<String>> {
    let mut entries = match fs::read_dir(folder).await {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    while let Some(entry) = entries.next_entry().await? {
        if let Ok(name) = entry.file_name().into_string()
            && name.strip_prefix(stem).is_some_and(|rest| rest.starts_with('.'))
        {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

async fn read_head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)
        .await?
        .take(HEAD_BYTES as u64)
        .read_to_end(&mut head)
        .await?;
    Ok(head)
}

/// Creates a folder so that it survives a power cut.
async fn create_folder(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder).await?;
    match folder.parent() {
        Some(parent) => sync_folder(parent).await,
        None => Ok(()),
    }
}

async fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder).await?.sync_all().await
}

fn too_large(limit: u64) -> CollectError {
    CollectError::Permanent(format!("the output is larger than {limit} bytes"))
}
