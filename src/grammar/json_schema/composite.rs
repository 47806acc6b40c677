//! Arrays and objects.

use std::collections::HashSet;

use super::super::expr::Expr;
use super::json::{Json, quoted};
use super::{Builder, after_comma, count, enclosed, malformed, space, string, unsupported};
use crate::error::Result;

/// The longest name of a property that other names are told apart from, in characters.
const MAX_NAME: usize = 200;

impl<'a> Builder<'a> {
    pub(super) fn array(&mut self, schema: &'a Json, place: &str) -> Result<Expr> {
        let (min, max) = (count(schema, "minItems", place)?.unwrap_or(0), count(schema, "maxItems", place)?);
        let prefix: &'a [Json] = match schema.get("prefixItems") {
            None => &[],
            Some(Json::Array(items)) => items,
            Some(_) => return Err(malformed(place, "\"prefixItems\" is not an array")),
        };
        let rest = match schema.get("items") {
            None => Some(self.any()),
            Some(Json::Bool(false)) => None,
            Some(items) => Some(self.sub(items, &format!("{place}/items"))?),
        };
        if max.is_some_and(|max| max < min) || (rest.is_none() && min as usize > prefix.len()) {
            return Err(malformed(place, "no array has so many and so few items"));
        }
        // From the last item to the first: what may follow the items before.
        let most = max.map_or(usize::MAX, |max| max as usize);
        let fixed = prefix.len() as u32;
        let mut tail = match rest {
            Some(item) if most > prefix.len() => {
                let more = after_comma(item.clone());
                if fixed == 0 {
                    // The first item has no comma before it.
                    let others = more.repeat(min.saturating_sub(1), max.map(|max| max - 1));
                    let list = Expr::Concat(vec![item, others]);
                    if min == 0 { list.optional() } else { list }
                } else {
                    more.repeat(min.saturating_sub(fixed), max.map(|max| max - fixed))
                }
            }
            _ => Expr::Empty,
        };
        for (i, schema) in prefix.iter().enumerate().take(most).rev() {
            let item = self.sub(schema, &format!("{place}/prefixItems/{i}"))?;
            let item = if i == 0 { item } else { after_comma(item) };
            let list = Expr::Concat(vec![item, tail]);
            let list = if i as u32 >= min { list.optional() } else { list };
            tail = Expr::Rule(self.add(list));
        }
        Ok(enclosed("[", tail, "]"))
    }

    pub(super) fn object(&mut self, schema: &'a Json, place: &str) -> Result<Expr> {
        let properties: &'a [(String, Json)] = match schema.get("properties") {
            None => &[],
            Some(Json::Object(properties)) => properties,
            Some(_) => return Err(malformed(place, "\"properties\" is not an object")),
        };
        let names: Vec<&str> = match schema.get("required") {
            None => Vec::new(),
            Some(Json::Array(names)) => names
                .iter()
                .map(|name| match name {
                    Json::String(name) => Ok(name.as_str()),
                    _ => Err(malformed(place, "\"required\" holds something that is not a string")),
                })
                .collect::<Result<_>>()?,
            Some(_) => return Err(malformed(place, "\"required\" is not an array")),
        };
        let required: HashSet<&str> = names.iter().copied().collect();
        let others = match schema.get("additionalProperties") {
            // Nothing is said of any name: any value will do.
            None if properties.is_empty() => Some(self.any()),
            None | Some(Json::Bool(false)) => None,
            Some(others) => Some(self.sub(others, &format!("{place}/additionalProperties"))?),
        };
        let mut members = Vec::new();
        for (name, schema) in properties {
            let value = self.sub(schema, &format!("{place}/properties/{name}"))?;
            members.push((name.as_str(), value, required.contains(name.as_str())));
        }
        let mut known: HashSet<&str> = properties.iter().map(|(name, _)| name.as_str()).collect();
        for name in names {
            if known.insert(name) {
                let value = match (&others, schema.get("additionalProperties")) {
                    (Some(others), _) => others.clone(),
                    (None, None) => self.any(),
                    (None, Some(_)) => {
                        return Err(malformed(
                            place,
                            format_args!("requires {name:?}, which it does not allow"),
                        ));
                    }
                };
                members.push((name, value, true));
            }
        }
        let member = |name: Expr, value: Expr| Expr::Concat(vec![name, Expr::text(":"), space(), value]);
        // `first` and `later`: what may come where no member was written yet, and where one was.
        let (mut first, mut later) = match others {
            None => (Expr::Empty, Expr::Empty),
            Some(value) => {
                let names: Vec<&str> = members.iter().map(|(name, ..)| *name).collect();
                if let Some(long) = names.iter().find(|name| name.chars().count() > MAX_NAME) {
                    return Err(unsupported(
                        place,
                        format_args!(
                            "additional properties beside a name of {} characters",
                            long.chars().count()
                        ),
                    ));
                }
                let item = Expr::Rule(self.add(member(string::name_other_than(&names), value)));
                let later = after_comma(item.clone()).repeat(0, None);
                (Expr::Concat(vec![item, later.clone()]).optional(), later)
            }
        };
        for (name, value, required) in members.into_iter().rev() {
            let item = Expr::Rule(self.add(member(Expr::text(&quoted(name)), value)));
            later = Expr::Rule(self.add(later));
            let mut firsts = vec![Expr::Concat(vec![item.clone(), later.clone()])];
            let mut laters = vec![Expr::Concat(vec![after_comma(item), later.clone()])];
            if !required {
                firsts.push(first);
                laters.push(later);
            }
            first = Expr::Rule(self.add(Expr::Alt(firsts)));
            later = Expr::Alt(laters);
        }
        Ok(enclosed("{", first, "}"))
    }
}
