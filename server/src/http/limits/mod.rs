//! How often one caller may call: named policies, counted over all replicas where there is a Redis ([`shared`]), else,
//! and while it does not answer, in this process.
//!
//! GCRA (a token bucket that stores one number per key): a full quota may be spent at once and refills evenly. Own code
//! because every ready limiter counts a hoop's key only, while a login is also counted by the account in its body and
//! given back when the password was right; and because memory must stay bounded under a flood of addresses.

mod shared;

use salvo::http::header::{HeaderName, HeaderValue};
use salvo::{Depot, FlowCtrl, Request, Response, async_trait};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Services;
use super::caller::{Caller, address};
use super::input::services;
use super::problem::{Code, Problem, Result};
use crate::shared::{Link, Part};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Keys are spread over this many locks, each with this many keys at most: about 6 MiB in all.
const SHARDS: usize = 16;
const KEYS_PER_SHARD: usize = 8192;

/// What is counted together. The numbers let a frontend and a test suite with several users behind one address live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Logins from one address.
    Login,
    /// Wrong passwords for one account.
    LoginAccount,
    /// Registrations from one address.
    Register,
    /// Token refreshes from one address.
    Refresh,
    /// Looks at the health of the account service, from one address.
    AuthHealth,
    /// Questions whether an e-mail is free, from one address.
    CheckEmail,
    /// Submitted generations of one user (the contract's 100 a minute).
    Submit,
    /// Purchases of one user: each asks the payment provider.
    Purchase,
    /// Status polls of one user.
    Status,
    /// Exports of one user's data.
    Export,
    /// Wrong redeem codes of one user.
    Redeem,
    /// Wrong redeem codes from one address.
    RedeemAddress,
    /// Everything else, of one user.
    Api,
}

/// A quota per window.
#[derive(Debug, Clone, Copy)]
struct Quota {
    name: &'static str,
    requests: u32,
    window: Duration,
}

impl Policy {
    fn quota(self) -> Quota {
        let (name, requests) = match self {
            Policy::Login => ("login", 20),
            Policy::LoginAccount => ("login-account", 5),
            Policy::Register => ("register", 30),
            Policy::Refresh => ("refresh", 30),
            Policy::AuthHealth => ("auth-health", 60),
            Policy::CheckEmail => ("check-email", 20),
            Policy::Submit => ("submit", 100),
            Policy::Purchase => ("purchase", 20),
            Policy::Status => ("status", 600),
            Policy::Export => ("export", 5),
            Policy::Redeem => ("redeem", 10),
            Policy::RedeemAddress => ("redeem-address", 30),
            Policy::Api => ("api", 300),
        };
        Quota {
            name,
            requests,
            window: Duration::from_secs(60),
        }
    }
}

/// Whose requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key(u128);

impl Key {
    /// One user.
    pub fn caller(caller: &Caller) -> Key {
        Key(caller.user_id.uuid().as_u128())
    }

    /// One client network: an IPv4 address, or the /64 an IPv6 site gets.
    pub fn address(address: Option<IpAddr>) -> Key {
        Key(match address {
            Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped().to_bits(),
            Some(IpAddr::V6(v6)) => match v6.to_ipv4_mapped() {
                Some(v4) => v4.to_ipv6_mapped().to_bits(),
                None => v6.to_bits() & (u128::MAX << 64),
            },
            None => 0,
        })
    }

    /// One account, by e-mail.
    pub fn account(email: &str) -> Key {
        let digest = Sha256::digest(email.as_bytes());
        Key(digest
            .iter()
            .take(16)
            .fold(0, |bits, byte| (bits << 8) | u128::from(*byte)))
    }
}

/// What is left of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Requests that may follow at once.
    pub remaining: u32,
    /// Until the quota is whole again.
    pub reset: Duration,
}

/// The quota is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// Until one request may pass.
    pub retry_after: Duration,
    /// Until the quota is whole again.
    pub reset: Duration,
}

type Shard = Mutex<HashMap<(Policy, Key), u64>>;

/// The limiter.
pub struct RateLimiter {
    enabled: bool,
    link: Option<Link>,
    started: Instant,
    hasher: RandomState,
    /// Theoretical arrival time (GCRA's one number) by key, in nanoseconds since `started`.
    shards: Vec<Shard>,
}

impl RateLimiter {
    /// A limiter; a disabled one lets everything pass. With a link it counts together with all who have one.
    pub fn new(enabled: bool, link: Option<Link>) -> Self {
        RateLimiter {
            enabled,
            link,
            started: Instant::now(),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Counts one request, if the quota has room. `None` when limits are switched off. Never an error: without Redis
    /// this process decides by what it has counted itself.
    pub async fn take(&self, policy: Policy, key: Key) -> std::result::Result<Option<Left>, Spent> {
        if !self.enabled {
            return Ok(None);
        }
        if let Some(link) = &self.link {
            match shared::take(link, policy.quota(), key).await {
                Ok(outcome) => return outcome.map(Some),
                Err(_) => link.fell_back(Part::Limits),
            }
        }
        self.take_at(policy, key, self.now()).map(Some)
    }

    /// Takes one request back, as if it had not been made.
    pub async fn give_back(&self, policy: Policy, key: Key) {
        if let Some(link) = &self.link
            && shared::give_back(link, policy.quota(), key).await.is_ok()
        {
            return;
        }
        let interval = interval(policy.quota());
        let mut shard = self.shard(policy, key);
        if let Some(arrival) = shard.get_mut(&(policy, key)) {
            *arrival = arrival.saturating_sub(interval);
        }
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn take_at(&self, policy: Policy, key: Key, now: u64) -> std::result::Result<Left, Spent> {
        let quota = policy.quota();
        let interval = interval(quota);
        let window = interval * u64::from(quota.requests);
        let mut shard = self.shard(policy, key);
        let arrival = shard.get(&(policy, key)).copied().unwrap_or(0).max(now);
        let ahead = arrival - now;
        if ahead + interval > window {
            return Err(Spent {
                retry_after: Duration::from_nanos(ahead + interval - window),
                reset: Duration::from_nanos(ahead),
            });
        }
        if shard.len() >= KEYS_PER_SHARD {
            make_room(&mut shard, now);
        }
        shard.insert((policy, key), arrival + interval);
        let ahead = ahead + interval;
        Ok(Left {
            remaining: ((window - ahead) / interval) as u32,
            reset: Duration::from_nanos(ahead),
        })
    }

    fn shard(&self, policy: Policy, key: Key) -> std::sync::MutexGuard<'_, HashMap<(Policy, Key), u64>> {
        let index = self.hasher.hash_one((policy, key)) as usize % SHARDS;
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nanoseconds between two requests at an even pace.
fn interval(quota: Quota) -> u64 {
    quota.window.as_nanos() as u64 / u64::from(quota.requests)
}

/// Drops keys with a whole quota; if none has one, the half that has spent least.
fn make_room(shard: &mut HashMap<(Policy, Key), u64>, now: u64) {
    shard.retain(|_, arrival| *arrival > now);
    if shard.len() >= KEYS_PER_SHARD {
        let mut arrivals = shard.values().copied().collect::<Vec<_>>();
        let (_, median, _) = arrivals.select_nth_unstable(KEYS_PER_SHARD / 2);
        let median = *median;
        let mut spare = KEYS_PER_SHARD / 2;
        shard.retain(|_, arrival| {
            let drop = *arrival <= median && spare > 0;
            spare -= usize::from(drop);
            !drop
        });
    }
}

/// Counts a request and says in `RateLimit` headers what is left; a 429 problem when nothing is.
pub(super) async fn count(services: &Services, policy: Policy, key: Key, res: &mut Response) -> Result<()> {
    let quota = policy.quota();
    let (left, outcome) = match services.limiter.take(policy, key).await {
        Ok(None) => return Ok(()),
        Ok(Some(left)) => (left, Ok(())),
        Err(spent) => {
            services.metrics.rate_limited(quota.name);
            let seconds = whole_seconds(spent.retry_after);
            let problem = Problem::new(
                Code::RateLimited,
                format!(
                    "More than {} requests in {} seconds; try again in {seconds} s",
                    quota.requests,
                    quota.window.as_secs()
                ),
            );
            let left = Left {
                remaining: 0,
                reset: spent.reset,
            };
            (left, Err(problem.retry_after(seconds)))
        }
    };
    let name = quota.name;
    let policy = format!("\"{name}\";q={};w={}", quota.requests, quota.window.as_secs());
    let rest = format!("\"{name}\";r={};t={}", left.remaining, whole_seconds(left.reset));
    for (header, value) in [(RATE_LIMIT_POLICY, policy), (RATE_LIMIT, rest)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            res.headers_mut().insert(header, value);
        }
    }
    outcome
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_millis().div_ceil(1000) as u64
}

/// The hoop that counts requests of a route: by user where there is one, else by address.
pub fn limit(policy: Policy) -> Limit {
    Limit(policy)
}

/// See [`limit`].
pub struct Limit(Policy);

#[async_trait]
impl salvo::Handler for Limit {
    async fn handle(&self, req: &mut Request, depot: &mut Depot, res: &mut Response, ctrl: &mut FlowCtrl) {
        let counted = match services(depot) {
            Ok(services) => {
                let key = match depot.get_typed::<Caller>() {
                    Ok(caller) => Key::caller(caller),
                    Err(_) => Key::address(address(req, services.config.trust_proxy_headers)),
                };
                count(services, self.0, key, res).await
            }
            Err(problem) => Err(problem),
        };
        match counted {
            Ok(()) => {
                ctrl.call_next(req, depot, res).await;
            }
            Err(problem) => {
                res.render(problem);
                ctrl.skip_rest();
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_quota_can_be_spent_at_once_and_refills_evenly() {
        let limiter = RateLimiter::new(true, None);
        let key = Key::account("a@example.com");
        let take = |now| limiter.take_at(Policy::LoginAccount, key, now);
        for left in (0..5).rev() {
            assert_eq!(take(0).unwrap().remaining, left);
        }
        let spent = take(0).unwrap_err();
        assert_eq!(spent.retry_after, Duration::from_secs(12));
        assert_eq!(spent.reset, Duration::from_secs(60));
        assert!(take(11 * SECOND).is_err());
        assert_eq!(take(12 * SECOND).unwrap().remaining, 0);
        assert_eq!(take(200 * SECOND).unwrap().remaining, 4);
        assert_eq!(
            limiter
                .take_at(Policy::LoginAccount, Key::account("b@example.com"), 0)
                .unwrap()
                .remaining,
            4,
            "another account has its own quota"
        );
    }

    #[tokio::test]
    async fn what_is_given_back_can_be_spent_again() {
        let limiter = RateLimiter::new(true, None);
        let key = Key::account("a@example.com");
        for _ in 0..100 {
            assert!(limiter.take(Policy::LoginAccount, key).await.is_ok());
            limiter.give_back(Policy::LoginAccount, key).await;
        }
        for _ in 0..5 {
            assert!(limiter.take(Policy::LoginAccount, key).await.is_ok());
        }
        assert!(limiter.take(Policy::LoginAccount, key).await.is_err());
        let off = RateLimiter::new(false, None);
        assert_eq!(off.take(Policy::LoginAccount, key).await, Ok(None));
    }

    #[test]
    fn a_flood_of_keys_does_not_grow_without_bound() {
        let limiter = RateLimiter::new(true, None);
        for n in 0..(SHARDS * KEYS_PER_SHARD * 2) as u128 {
            limiter.take_at(Policy::Login, Key(n << 64), 0).unwrap();
        }
        let keys: usize = limiter.shards.iter().map(|s| s.lock().unwrap().len()).sum();
        assert!(keys <= SHARDS * KEYS_PER_SHARD, "{keys}");
    }

    #[test]
    fn an_ipv6_site_is_one_key_and_a_mapped_address_is_its_ipv4_self() {
        let key = |text: &str| Key::address(Some(text.parse().unwrap()));
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:192.0.2.7"), key("192.0.2.7"));
        assert_ne!(key("192.0.2.8"), key("192.0.2.7"));
    }

    proptest! {
        /// Whatever the arrivals, a window never sees more than its quota plus what refills meanwhile.
        #[test]
        fn no_window_sees_more_than_burst_plus_refill(gaps in proptest::collection::vec(0u64..20, 1..200)) {
            let limiter = RateLimiter::new(true, None);
            let key = Key(7 << 64);
            let mut now = 0;
            let mut passed = Vec::new();
            for gap in gaps {
                now += gap * SECOND;
                if limiter.take_at(Policy::LoginAccount, key, now).is_ok() {
                    passed.push(now);
                }
            }
            for (i, start) in passed.iter().enumerate() {
                for (j, end) in passed.iter().enumerate().skip(i) {
                    let refilled = (end - start) / (12 * SECOND);
                    prop_assert!((j - i + 1) as u64 <= 5 + refilled);
                }
            }
        }
    }
}
