//! Redeem codes: made by operators, used by people.

use crate::clock::Micros;
use crate::id::{RedeemCodeId, UserId};
use crate::ledger::Credits;

use super::By;

/// A code as stored; the code itself is not.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct RedeemCode {
    pub id: RedeemCodeId,
    /// Its first characters, so that people know it again.
    pub hint: String,
    /// What one use gives.
    pub credits: Credits,
    pub max_uses: u32,
    pub uses: u32,
    pub per_user_limit: u32,
    /// For the operators.
    pub note: String,
    pub created_by: String,
    pub created_at: Micros,
    pub expires_at: Option<Micros>,
    pub disabled_at: Option<Micros>,
}

/// To make a code.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct NewCode {
    pub id: RedeemCodeId,
    /// SHA-256 of the normal form, hex; the code itself is never stored.
    pub hash: String,
    pub hint: String,
    pub credits: Credits,
    pub max_uses: u32,
    pub per_user_limit: u32,
    pub note: String,
    pub expires_at: Option<Micros>,
    pub by: By,
}

/// A use of a code.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Redemption {
    pub user_id: UserId,
    pub email: String,
    /// The first, second ... time of this user.
    pub ordinal: u32,
    pub credits: Credits,
    pub created_at: Micros,
}

/// To use a code.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Redeem {
    pub user_id: UserId,
    /// As [`NewCode::hash`].
    pub hash: String,
    pub now: Micros,
}

/// What became of it; nothing was changed unless it is [`Redeemed::Done`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Redeemed {
    /// Booked; what it gave, and what can be spent now.
    #[allow(missing_docs)]
    Done { credits: Credits, available: Credits },
    /// There is no such code, or it was disabled.
    Unknown,
    /// Its time is over.
    Expired,
    /// All its uses are used.
    UsedUp,
    /// This user has used it as often as one may.
    AlreadyRedeemed,
    /// The account is suspended.
    Suspended,
    /// There is no such account.
    NoSuchUser,
}
