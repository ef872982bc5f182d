//! Purchases of credits: packages and their prices, orders, and what a payment provider may say about them. No I/O.

mod money;
mod order;
mod package;
mod word;

pub use money::{Currency, Money, MoneyFault};
pub use order::{Order, OrderStatus, Payment};
pub use package::{Package, PackageFault, check_packages};
pub use word::{MoneyBack, MoneyBackKind, PaymentWord, Reversal, SessionWord, credits_to_reverse};
