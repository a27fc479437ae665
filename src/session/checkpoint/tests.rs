//! Claims about what a token holds.

use uuid::Uuid;

use super::*;
use crate::policy::Severity;

/// Written without the types that are saved. Where this fails, `token::VERSION` has to go up, so that replicas of two
/// builds refuse each other's tokens instead of misreading them. The two states in it have a test of their own.
#[test]
fn a_token_of_version_2_is_laid_out_like_this() {
    let states = include_bytes!("../../../tests/data/states/version-2.bin");
    let (analysis, watcher): (AnalysisState, WatcherState) = postcard::from_bytes(states).unwrap();
    let progress = (70_000_u64, 15_u64, 12_u64, 11_u64, Some(13_u64), Some(-5_i64));
    let open = vec![(Uuid::from_u128(7), "anger", 1_u32, Severity::High)];
    let alarm = (open, vec![Uuid::from_u128(8)]);
    let policy = Some((Some("a: policy"), watcher, alarm));
    let by_hand = (b"config".to_vec(), "call-1", progress, analysis, policy);
    let by_hand = postcard::to_stdvec(&by_hand).unwrap();

    let saved: Saved = postcard::from_bytes(&by_hand).unwrap();
    assert_eq!(saved.config, b"config");
    assert_eq!(saved.session_id, "call-1");
    let progress = Progress {
        bytes: 70_000,
        requests: 15,
        chunks: 12,
        estimates: 11,
        sequence: Some(13),
        captured_at_us: Some(-5),
    };
    assert_eq!(saved.progress, progress);
    assert_eq!(saved.policy.as_ref().unwrap().text.as_deref(), Some("a: policy"));
    assert!(postcard::to_stdvec(&saved).unwrap() == by_hand, "it is written otherwise than read");
}
