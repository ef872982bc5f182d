use super::*;
use crate::config::Secret;
use crate::provider::LoadedProvider;
use crate::upstream::tests::{Does, Server, provider, upstream};
use std::time::Duration;
use tempfile::TempDir;

const NOW: Micros = Micros(1_795_396_446_000_000);
const HOUR_S: u64 = 3_600;

fn outputs() -> (Outputs, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let outputs = Outputs::at(folder.path(), signer("secret"), 100_000, 5_000).unwrap();
    (outputs, folder)
}

/// A provider for which where a file comes from does not matter.
fn any() -> LoadedProvider {
    provider("files.test", None)
}

fn signer(secret: &str) -> Signer {
    Signer::new(
        &Secret::new(secret),
        "https://velro.example/",
        Duration::from_secs(HOUR_S),
    )
}

/// The head of a PNG, which is all that is looked at.
fn png(width: u32, height: u32, bytes: usize) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    png.extend_from_slice(&width.to_be_bytes());
    png.extend_from_slice(&height.to_be_bytes());
    png.resize(bytes, 7);
    png
}

fn files(folder: &TempDir, generation: GenerationId) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path().join("outputs").join(generation.to_string()));
    entries
        .map(|e| e.map(|e| e.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default()
}

#[tokio::test]
async fn copies_once_and_describes_the_same_again() {
    let (outputs, folder) = outputs();
    let bytes = png(640, 480, 3_000);
    let server = Server::start(Does::answer(200, "content-type: text/html\r\n", &bytes)).await;
    let generation = GenerationId::new();
    let output = Output::url("image", server.url("/a.html?sig=1"));
    let first = outputs
        .collect(&upstream(true), &any(), generation, 2, &output, None)
        .await
        .unwrap();
    assert_eq!(
        (first.index, first.bytes, first.content_type.as_str()),
        (2, 3_000, "image/png")
    );
    assert_eq!((first.width, first.height), (Some(640), Some(480)));
    assert_eq!(first.sha256, hex::encode(digest(&SHA256, &bytes)));
    assert!(first.key.starts_with(&format!("{generation}/2-")) && first.key.ends_with(".png"));
    assert_eq!(std::fs::read(outputs.path(&first.key).unwrap()).unwrap(), bytes);

    // The crash came between the copy and its settlement; meanwhile the provider's copy may be gone.
    let again = outputs
        .collect(&upstream(true), &any(), generation, 2, &output, None)
        .await
        .unwrap();
    assert_eq!((again, server.connections()), (first.clone(), 1));
    assert_eq!(files(&folder, generation).len(), 1);

    // Another source is another file.
    let other = Output::url("image", server.url("/b"));
    let other = outputs
        .collect(&upstream(true), &any(), generation, 2, &other, None)
        .await
        .unwrap();
    assert_ne!(other.key, first.key);

    outputs
        .remove(&[&first.key, &other.key, &first.key, "../secret", "a"].map(|k: &str| k.to_owned()))
        .await
        .unwrap();
    assert!(!outputs.path(&first.key).unwrap().parent().unwrap().exists());
}

#[tokio::test]
async fn a_crash_while_copying_leaves_nothing_that_counts() {
    let (outputs, folder) = outputs();
    let generation = GenerationId::new();
    let mut half = b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n".to_vec();
    half.extend_from_slice(&png(8, 8, 100));
    let server = Server::start(Does::Say(half)).await;
    let output = Output::url("image", server.url("/"));
    let error = outputs
        .collect(&upstream(true), &any(), generation, 0, &output, None)
        .await
        .unwrap_err();
    assert!(matches!(error, CollectError::Retryable(_)), "{error}");
    assert!(files(&folder, generation).is_empty());
    // What a killed process leaves behind is not taken for a file either.
    let inside = folder.path().join("outputs").join(generation.to_string());
    std::fs::write(inside.join(".1.part"), b"half").unwrap();
    assert!(
        outputs
            .collect(&upstream(true), &any(), generation, 0, &output, None)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn only_media_of_the_announced_kind() {
    let (outputs, folder) = outputs();
    let html = b"<!DOCTYPE html><script>alert(1)</script>".to_vec();
    let svg = b"<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\"/>".to_vec();
    let zip = b"PK\x03\x04aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".to_vec();
    let cases = [
        ("image", html),
        ("image", svg),
        ("image", zip),
        ("video", png(8, 8, 100)),
        ("image", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom".to_vec()),
        ("image", png(8, 8, 100_001)),
    ];
    for (kind, bytes) in cases {
        let server = Server::start(Does::answer(200, "", &bytes)).await;
        let generation = GenerationId::new();
        let output = Output::url(kind, server.url("/"));
        let error = outputs
            .collect(&upstream(true), &any(), generation, 0, &output, None)
            .await
            .unwrap_err();
        assert!(matches!(error, CollectError::Permanent(_)), "{error}");
        assert!(files(&folder, generation).is_empty());
    }
}

#[tokio::test]
async fn outputs_inside_the_answer() {
    let (outputs, _folder) = outputs();
    let bytes = png(8, 16, 100);
    let with = |source: Source| Output {
        source,
        ..Output::url("image", "")
    };
    let upstream = upstream(false);
    let body = with(Source::Body);
    let stored = outputs
        .collect(&upstream, &any(), GenerationId::new(), 0, &body, Some(&bytes))
        .await
        .unwrap();
    assert_eq!((stored.width, stored.height), (Some(8), Some(16)));
    let answer = serde_json::json!({"data": [{"b64_json": STANDARD.encode(&bytes)}]}).to_string();
    let inside = with(Source::BodyBase64("/data/0/b64_json".into()));
    let stored = outputs
        .collect(
            &upstream,
            &any(),
            GenerationId::new(),
            0,
            &inside,
            Some(answer.as_bytes()),
        )
        .await
        .unwrap();
    assert_eq!(stored.bytes, 100);
    for (source, answer) in [
        (Source::BodyBase64("/nope".into()), Some(answer.as_bytes())),
        (Source::Body, None),
        (Source::Text("hello".into()), None),
        (Source::Json(Value::Null), None),
    ] {
        let error = outputs
            .collect(&upstream, &any(), GenerationId::new(), 0, &with(source), answer)
            .await
            .unwrap_err();
        assert!(matches!(error, CollectError::Permanent(_)), "{error}");
    }
}

/// Key, expiry and signature of a link.
fn parts(url: &str) -> (String, String, String) {
    let rest = url.strip_prefix("https://velro.example/outputs/").unwrap();
    let (key, query) = rest.split_once("?exp=").unwrap();
    let (exp, sig) = query.split_once("&sig=").unwrap();
    (key.to_owned(), exp.to_owned(), sig.to_owned())
}

#[test]
fn links_hold_for_their_time_and_their_file_only() {
    let (outputs, _folder) = outputs();
    let (key, exp, sig) = parts(&outputs.sign("gen/0-ab.png", NOW));
    let path = outputs.verify(&key, &exp, &sig, NOW).unwrap();
    assert!(path.ends_with("outputs/gen/0-ab.png"));
    let hour = NOW.plus(Duration::from_secs(HOUR_S));
    assert!(
        outputs
            .verify(&key, &exp, &sig, hour.minus(Duration::from_secs(1)))
            .is_ok()
    );
    let late = hour.plus(Duration::from_secs(HOUR_S / 4));
    assert_eq!(outputs.verify(&key, &exp, &sig, late), Err(LinkRefused::Expired));

    let longer = (exp.parse::<i64>().unwrap() + 1).to_string();
    let (upper, padded) = (sig.to_uppercase(), format!("+{exp}"));
    for (key, exp, sig) in [
        ("gen/1-ab.png", &exp, &sig),
        (key.as_str(), &longer, &sig),
        (&key, &padded, &sig),
        (&key, &exp, &upper),
        (&key, &exp, &String::new()),
        (&key, &String::new(), &sig),
        (&key, &exp, &sig[..60].to_owned()),
    ] {
        assert_eq!(
            outputs.verify(key, exp, sig, NOW),
            Err(LinkRefused::Signature),
            "{key} {exp} {sig}"
        );
    }
    let (_, exp, sig) = parts(&signer("another").url(&key, NOW));
    assert_eq!(outputs.verify(&key, &exp, &sig, NOW), Err(LinkRefused::Signature));
}

#[test]
fn links_stay_the_same_for_a_while() {
    let (outputs, _folder) = outputs();
    let links = (0..HOUR_S)
        .step_by(60)
        .map(|s| outputs.sign("a/b.png", NOW.plus(Duration::from_secs(s))));
    let mut links: Vec<String> = links.collect();
    links.dedup();
    assert!((4..=5).contains(&links.len()), "{links:?}");
}

/// Not even a key that this server signed by mistake leads out of the folder.
#[test]
fn no_key_leads_out_of_the_folder() {
    let (outputs, folder) = outputs();
    for key in [
        "../secret",
        "a/../../b",
        "/etc/passwd",
        "a//b",
        "a",
        "",
        "a/.hidden",
        "a/..",
        "a/b\0c",
        "a\\b/c",
        "a/b/c/d/e",
        "a/b c",
        "a/%2e%2e",
    ] {
        assert_eq!(outputs.path(key), None, "{key}");
        let url = outputs.sign(key, NOW);
        let (_, exp, sig) = parts(&url);
        assert_eq!(outputs.verify(key, &exp, &sig, NOW), Err(LinkRefused::Signature));
    }
    assert!(
        outputs
            .path("uploads/u/x.png")
            .unwrap()
            .starts_with(folder.path().join("outputs"))
    );
}

#[tokio::test]
async fn uploads_are_images() {
    let (outputs, _folder) = outputs();
    let user = UserId::new();
    let bytes = png(8, 8, 200);
    let key = outputs.store_upload(user, &bytes).await.unwrap();
    assert_eq!(key, outputs.store_upload(user, &bytes).await.unwrap());
    assert_ne!(key, outputs.store_upload(UserId::new(), &bytes).await.unwrap());
    assert_eq!(std::fs::read(outputs.path(&key).unwrap()).unwrap(), bytes);
    assert_eq!(Outputs::content_type(&key), "image/png");
    let big = outputs.store_upload(user, &png(8, 8, 5_001)).await;
    assert!(matches!(big, Err(UploadError::TooLarge(5_000))));
    for bytes in [&b"<svg/>"[..], b"", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", b"GIF"] {
        assert!(matches!(
            outputs.store_upload(user, bytes).await,
            Err(UploadError::NotAnImage)
        ));
    }
}

#[tokio::test]
async fn a_provider_gets_the_owner_s_upload_and_nobody_else_s() {
    let (outputs, _folder) = outputs();
    let (ann, bob) = (UserId::new(), UserId::new());
    let image = png(8, 8, 100);
    let key = outputs.store_upload(ann, &image).await.unwrap();
    let link = outputs.sign(&key, NOW);
    let later = NOW.plus(Duration::from_secs(30 * HOUR_S));

    let inline = outputs.for_provider(&link, ann, later).await.unwrap().unwrap();
    assert_eq!(inline, format!("data:image/png;base64,{}", STANDARD.encode(&image)));
    assert_eq!(
        outputs.for_provider(&link, bob, later).await.unwrap(),
        None,
        "not Bob's"
    );
    let other = "https://elsewhere.example/outputs/uploads/x.png";
    assert_eq!(outputs.for_provider(other, ann, later).await.unwrap(), None);

    let outputs = Outputs {
        links_reach_us: true,
        ..outputs
    };
    let fresh = outputs.for_provider(&link, ann, later).await.unwrap().unwrap();
    let (key, exp, sig) = parts(&fresh);
    assert!(
        outputs.verify(&key, &exp, &sig, later).is_ok(),
        "the old link has expired, this one holds"
    );
    outputs.remove(&[&key]).await.unwrap();
    let outputs = Outputs {
        links_reach_us: false,
        ..outputs
    };
    assert!(
        outputs.for_provider(&link, ann, later).await.is_err(),
        "the image is gone"
    );
}
