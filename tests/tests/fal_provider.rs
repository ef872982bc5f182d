//! The built-in FAL provider and the upstream client against the simulator, with the host reduced to a loop: every
//! fault at every point of a job. A job ends as it should, and nothing is ever bought twice.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::atomic::Ordering;

use serde_json::json;
use tests::fal_bench::{Bench, FLUX, Hooks, parse};
use tests::fal_sim::{Phase, Point, Settings};
use velro::upstream::DownloadError;
use velro_plugin::{ErrorKind, Source};

#[tokio::test]
async fn pictures_and_clips_arrive() {
    let bench = Bench::start(Settings::default()).await;
    let outcome = bench.picture().await.unwrap();
    assert_eq!(outcome.outputs.len(), 2);
    assert_eq!(outcome.billed.unwrap().units_milli, 2_000);
    assert!(outcome.meta["seed"].is_u64());
    let clip = bench
        .run("fal-ai/veo3", &json!({"prompt": "a fox"}), None)
        .await
        .unwrap();
    assert_eq!(clip.outputs[0].kind, "video");

    let folder = tempfile::tempdir().unwrap();
    for output in outcome.outputs.iter().chain(&clip.outputs) {
        let Source::Url(url) = &output.source else {
            panic!("{output:?}")
        };
        let mut file = tokio::fs::File::create(folder.path().join("file")).await.unwrap();
        let file = bench
            .upstream
            .download(&bench.provider, url, 50 << 20, &mut file)
            .await
            .unwrap();
        assert!(file.bytes > 100);
    }
    let Source::Url(url) = &outcome.outputs[0].source else {
        panic!()
    };
    bench.sim.handle().fault(Point::Media, parse("half"), 1);
    let mut file = tokio::fs::File::create(folder.path().join("half")).await.unwrap();
    let error = bench
        .upstream
        .download(&bench.provider, url, 50 << 20, &mut file)
        .await
        .unwrap_err();
    assert!(matches!(error, DownloadError::Retryable(_)), "{error}");
    bench.sim.handle().fault(Point::Media, parse("oversized:9000000"), 1);
    let error = bench
        .upstream
        .download(&bench.provider, url, 1 << 20, &mut file)
        .await
        .unwrap_err();
    assert!(matches!(error, DownloadError::Permanent(_)), "{error}");
}

#[tokio::test]
async fn faults_of_the_submit() {
    for (fault, kind, bought) in [
        ("503", ErrorKind::UnknownOutcome, 0),
        ("500", ErrorKind::UnknownOutcome, 0),
        ("cut", ErrorKind::UnknownOutcome, 0),
        ("hang", ErrorKind::UnknownOutcome, 0),
        ("429", ErrorKind::RateLimited, 0),
        ("401", ErrorKind::Auth, 0),
        ("403", ErrorKind::Auth, 0),
        ("accept_then_503", ErrorKind::UnknownOutcome, 1),
        ("accept_then_cut", ErrorKind::UnknownOutcome, 1),
        ("accept_then_hang", ErrorKind::UnknownOutcome, 1),
        ("half", ErrorKind::UnknownOutcome, 1),
        ("garbage", ErrorKind::UnknownOutcome, 1),
        ("wrong_type", ErrorKind::UnknownOutcome, 1),
    ] {
        let bench = Bench::start(Settings::default()).await;
        bench.sim.handle().fault(Point::Submit, parse(fault), 1);
        let failure = bench.picture().await.unwrap_err();
        assert_eq!((failure.kind, bench.bought()), (kind, bought), "{fault}");
    }
    let bench = Bench::start(Settings::default()).await;
    bench.sim.handle().fault(Point::Submit, parse("slow:50"), 1);
    assert!(bench.picture().await.is_ok());
    bench.sim.handle().refuse_connections().await;
    assert_eq!(bench.picture().await.unwrap_err().kind, ErrorKind::Unavailable);
    assert_eq!(bench.bought(), 1);
    let locked = Bench::start(Settings {
        balance_locked: true,
        ..Settings::default()
    });
    assert_eq!(locked.await.picture().await.unwrap_err().kind, ErrorKind::Quota);
}

#[tokio::test]
async fn faults_on_the_way_to_the_result() {
    let faults = [
        "500",
        "502",
        "503",
        "429",
        "404",
        "401",
        "cut",
        "hang",
        "accept_then_cut",
        "half",
        "garbage",
        "wrong_type",
        "slow:50",
    ];
    for point in [Point::Status, Point::Result] {
        for fault in faults {
            let bench = Bench::start(Settings::default()).await;
            bench.sim.handle().fault(point, parse(fault), 2);
            let outcome = bench.picture().await;
            let outcome = outcome.unwrap_or_else(|failure| panic!("{point:?} {fault}: {failure:?}"));
            assert_eq!((outcome.outputs.len(), bench.bought()), (2, 1), "{point:?} {fault}");
        }
    }
}

#[tokio::test]
async fn faults_of_the_job() {
    for hide_errors in [false, true] {
        for (fault, kind) in [
            ("fail", ErrorKind::Upstream),
            ("policy", ErrorKind::ContentPolicy),
            ("runner", ErrorKind::Upstream),
            ("error:generation_timeout", ErrorKind::Timeout),
            ("error:file_download_error", ErrorKind::InvalidInput),
            ("no_media", ErrorKind::BadResponse),
        ] {
            let bench = Bench::start(Settings {
                hide_errors,
                ..Settings::default()
            })
            .await;
            bench.sim.handle().fault(Point::Job, parse(fault), 1);
            let failure = bench.picture().await.unwrap_err();
            assert_eq!(
                (failure.kind, bench.bought()),
                (kind, 1),
                "{fault}, hidden {hide_errors}: {failure:?}"
            );
        }
    }
    let bench = Bench::start(Settings::default()).await;
    bench.sim.handle().fault(Point::Job, parse("fewer"), 1);
    assert_eq!(bench.picture().await.unwrap().outputs.len(), 1);
    let failure = bench
        .run(FLUX, &json!({"prompt": "a fox", "num_images": 9}), None)
        .await
        .unwrap_err();
    assert_eq!(failure.kind, ErrorKind::InvalidInput);
    assert!(
        failure.message.contains("`num_images` must be at most 4"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn a_cancel_ends_as_fal_says() {
    let input = json!({"prompt": "a fox"});
    let cancel = |bench: Bench| {
        let input = input.clone();
        async move {
            let result = bench.run(FLUX, &input, Some(2)).await;
            assert_eq!(bench.bought(), 1);
            (result, bench)
        }
    };
    // Running or waiting, and however the cancel's answer gets lost.
    for job in ["never", "queue_ms:60000"] {
        for fault in [None, Some("503"), Some("cut"), Some("accept_then_cut"), Some("garbage")] {
            let bench = Bench::start(Settings::default()).await;
            bench.sim.handle().fault(Point::Job, parse(job), 1);
            if let Some(fault) = fault {
                bench.sim.handle().fault(Point::Cancel, parse(fault), 1);
            }
            let (result, bench) = cancel(bench).await;
            assert_eq!(result.unwrap_err().kind, ErrorKind::Cancelled, "{job} {fault:?}");
            assert_eq!(bench.sim.handle().billed_milliunits(), 0);
        }
    }
    // A cancel that FAL only says it heard: the picture comes, and is paid.
    let bench = Bench::start(Settings {
        ignore_cancel: true,
        run_ms: 400,
        ..Settings::default()
    })
    .await;
    let (result, bench) = cancel(bench).await;
    assert_eq!(result.unwrap().outputs.len(), 1);
    assert_eq!(bench.sim.handle().requests()[0].phase, Phase::Completed);
}

/// The submit's answer is lost, but FAL has the job: its webhook finds it, a forged one does not.
#[tokio::test]
async fn a_webhook_resolves_a_lost_submit() {
    for fault in ["accept_then_cut", "accept_then_503", "half", "garbage"] {
        let bench = Bench::start(Settings::default()).await;
        let hooks = Hooks::start(&bench).await;
        bench.sim.handle().fault(Point::Submit, parse(fault), 1);
        let outcome = bench
            .run_hooked(FLUX, &json!({"prompt": "a fox"}), None, Some(&hooks))
            .await;
        let outcome = outcome.unwrap_or_else(|failure| panic!("{fault}: {failure:?}"));
        assert_eq!((outcome.outputs.len(), bench.bought()), (1, 1), "{fault}");
    }
    for (fault, refused) in [("bad_signature", 1), ("stale", 1), ("drop", 0)] {
        let bench = Bench::start(Settings::default()).await;
        let hooks = Hooks::start(&bench).await;
        bench.sim.handle().fault(Point::Submit, parse("accept_then_cut"), 1);
        bench.sim.handle().fault(Point::Webhook, parse(fault), 1);
        let failure = bench
            .run_hooked(FLUX, &json!({"prompt": "a fox"}), None, Some(&hooks))
            .await
            .unwrap_err();
        assert_eq!(
            (failure.kind, bench.bought()),
            (ErrorKind::UnknownOutcome, 1),
            "{fault}"
        );
        assert_eq!(hooks.refused.load(Ordering::SeqCst), refused, "{fault}");
    }
    // One that speaks too early is only a hint.
    let bench = Bench::start(Settings::default()).await;
    let hooks = Hooks::start(&bench).await;
    bench.sim.handle().fault(Point::Submit, parse("accept_then_cut"), 1);
    bench.sim.handle().fault(Point::Webhook, parse("lie"), 1);
    let outcome = bench
        .run_hooked(FLUX, &json!({"prompt": "a fox"}), None, Some(&hooks))
        .await;
    assert_eq!((outcome.unwrap().outputs.len(), bench.bought()), (1, 1));
}
