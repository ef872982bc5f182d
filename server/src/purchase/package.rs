//! What is for sale: a number of credits for a price.

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeSet;

use super::money::Money;
use crate::ledger::Credits;

/// Most packages on sale.
const MAX_PACKAGES: usize = 50;
/// Longest id, in characters.
const MAX_ID_CHARS: usize = 64;
/// Longest name, in characters; it is shown on the payment page.
const MAX_NAME_CHARS: usize = 120;
/// Most credits of a package.
const MAX_CREDITS: i64 = 1_000_000_000;

/// A number of credits for a price.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// What a client orders by.
    pub id: String,
    /// Shown on the payment page.
    pub name: String,
    /// What is given.
    pub credits: Credits,
    /// What is paid.
    pub price: Money,
}

/// One thing wrong with the packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageFault {
    /// What is wrong, without the place.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// As an operator writes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    name: String,
    credits: i64,
    price: Value,
    currency: String,
}

/// Checks a list of packages as an operator wrote it; everything that is wrong at once.
///
/// # Errors
///
/// The faults, in the order of the list.
pub fn check_packages(list: &Value) -> Result<Vec<Package>, Vec<PackageFault>> {
    const FORM: &str = "write id, name, credits, price and currency, for example { id = \"starter\", name = \"Starter\", \
                        credits = 500, price = \"4.99\", currency = \"usd\" }";
    let Some(entries) = list.as_array() else {
        return Err(vec![PackageFault {
            what: "is not a list of packages".into(),
            remedy: FORM.into(),
        }]);
    };
    let (mut packages, mut faults, mut ids) = (Vec::new(), Vec::new(), BTreeSet::new());
    let mut fault = |at: usize, id: &str, what: String, remedy: &str| {
        let named = if id.is_empty() {
            String::new()
        } else {
            format!(" \"{id}\"")
        };
        faults.push(PackageFault {
            what: format!("package {}{named}: {what}", at + 1),
            remedy: remedy.to_owned(),
        });
    };
    for (at, entry) in entries.iter().enumerate() {
        let known = entry.get("id").and_then(Value::as_str).unwrap_or_default();
        let entry: Entry = match serde_json::from_value(entry.clone()) {
            Ok(entry) => entry,
            Err(error) => {
                fault(at, known, error.to_string(), FORM);
                continue;
            }
        };
        let id = entry.id.as_str();
        let id_fits = !id.is_empty()
            && id.len() <= MAX_ID_CHARS
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !id_fits {
            let what = format!("`id` is \"{id}\"");
            fault(at, "", what, "write up to 64 letters, digits and - _ . in it");
        } else if !ids.insert(entry.id.clone()) {
            fault(
                at,
                id,
                "its id is there twice".into(),
                "give every package an id of its own",
            );
        }
        let name = entry.name.trim();
        if name.is_empty() || name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control) {
            let remedy = "write a name of up to 120 characters, as buyers shall see it";
            fault(at, id, format!("`name` is \"{name}\""), remedy);
        }
        if !(1..=MAX_CREDITS).contains(&entry.credits) {
            let what = format!("`credits` is {}", entry.credits);
            fault(at, id, what, "write a whole number from 1 to 1000000000");
        }
        let price = match &entry.price {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(number) if number.is_i64() => number.to_string(),
            _ => {
                let remedy = "write it in quotes, for example price = \"9.99\": a float would be rounded";
                fault(at, id, format!("`price` is {}", entry.price), remedy);
                continue;
            }
        };
        match Money::parse(&price, entry.currency.trim()) {
            Ok(price) => packages.push(Package {
                id: entry.id.clone(),
                name: name.to_owned(),
                credits: Credits(entry.credits),
                price,
            }),
            Err(wrong) => {
                let text = wrong.to_string();
                let (what, remedy) = text
                    .split_once("; ")
                    .unwrap_or((&text, "write a price that can be charged"));
                fault(at, id, what.to_owned(), remedy);
            }
        }
    }
    if entries.len() > MAX_PACKAGES {
        faults.push(PackageFault {
            what: format!("has {} packages", entries.len()),
            remedy: format!("keep to {MAX_PACKAGES}"),
        });
    }
    match faults.is_empty() {
        true => Ok(packages),
        false => Err(faults),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn packages_are_read() {
        let list = json!([
            {"id": "s", "name": " Small ", "credits": 500, "price": "4.99", "currency": "USD"},
            {"id": "y", "name": "Yen", "credits": 1, "price": 700, "currency": "jpy"},
        ]);
        let packages = check_packages(&list).unwrap();
        assert_eq!(
            (packages[0].name.as_str(), packages[0].price.amount_minor),
            ("Small", 499)
        );
        assert_eq!(packages[1].price.to_string(), "700 JPY");
        assert_eq!(check_packages(&json!([])).unwrap(), []);
    }

    #[test]
    fn everything_wrong_with_packages_is_told_at_once() {
        let list = json!([
            {"id": "a b", "name": "", "credits": 0, "price": "1", "currency": "usd"},
            {"id": "x", "name": "X", "credits": 5, "price": 9.99, "currency": "usd"},
            {"id": "x", "name": "X", "credits": 5, "price": "9.999", "currency": "usd"},
            {"id": "z", "name": "Z", "credits": 5, "price": "9", "currency": "usd", "colour": "red"},
            {"id": "w"},
            7,
        ]);
        let faults = check_packages(&list).unwrap_err();
        let text: Vec<String> = faults.iter().map(|f| format!("{}; {}", f.what, f.remedy)).collect();
        let text = text.join("\n");
        for part in [
            "package 1: `id` is \"a b\"",
            "package 1 \"a b\": `name` is \"\"",
            "package 1 \"a b\": `credits` is 0",
            "package 2 \"x\": `price` is 9.99; write it in quotes",
            "package 3 \"x\": its id is there twice",
            "package 3 \"x\": `price` \"9.999\" has more than 2 decimals; USD has 2",
            "package 4 \"z\": unknown field `colour`",
            "package 5 \"w\": missing field `name`",
            "package 6: invalid type",
        ] {
            assert!(text.contains(part), "{part} is missing from\n{text}");
        }
        assert_eq!(check_packages(&json!("x")).unwrap_err().len(), 1);
    }
}
