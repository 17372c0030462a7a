//! Reads OpenMetrics text strictly: what a scraper may refuse is refused here.

use std::collections::{BTreeMap, BTreeSet};

/// Labels of a sample.
pub(crate) type Labels = BTreeMap<String, String>;

/// A metric as it is declared.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
}

/// What was scraped.
#[derive(Debug, Default)]
pub(crate) struct Scrape {
    pub(crate) families: BTreeMap<String, Family>,
    pub(crate) samples: Vec<(String, Labels, f64)>,
}

impl Scrape {
    /// The values of samples that have these labels among theirs.
    pub(crate) fn values(&self, name: &str, labels: &[(&str, &str)]) -> Vec<f64> {
        let has = |of: &Labels| {
            let mut wanted = labels.iter();
            wanted.all(|(name, value)| of.get(*name).is_some_and(|it| it == value))
        };
        let of = self.samples.iter();
        let of = of.filter(|(sample, labels, _)| sample == name && has(labels));
        of.map(|(_, _, value)| *value).collect()
    }

    /// The value of the only such sample.
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        match *self.values(name, labels) {
            [value] => Some(value),
            _ => None,
        }
    }
}

/// Reads a whole text.
pub(crate) fn parse(text: &str) -> Result<Scrape, String> {
    let body = text
        .strip_suffix("# EOF\n")
        .ok_or("does not end with # EOF")?;
    let mut scrape = Scrape::default();
    let mut current: Option<(String, Option<String>, Option<String>)> = None;
    let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
    for line in body.split_terminator('\n') {
        let wrong = |why: &str| format!("{why}: `{line}`");
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let (Some(what), Some(name), Some(text)) = (words.next(), words.next(), words.next())
            else {
                return Err(wrong("half a comment"));
            };
            if current.as_ref().is_none_or(|(of, _, _)| of != name) {
                if scrape.families.contains_key(name) || !is_name(name) {
                    return Err(wrong("declared twice, or no name"));
                }
                current = Some((name.to_owned(), None, None));
            }
            let (_, kind, help) = current.as_mut().ok_or("no family")?;
            let slot = match what {
                "TYPE" => kind,
                "HELP" => help,
                _ => return Err(wrong("neither TYPE nor HELP")),
            };
            if slot.replace(text.to_owned()).is_some() {
                return Err(wrong("said twice"));
            }
            if let Some((name, Some(kind), Some(help))) = &current {
                let (kind, help) = (kind.clone(), help.clone());
                let family = Family { kind, help };
                scrape.families.insert(name.clone(), family);
            }
            continue;
        }
        let (name, labels, value) = sample(line).ok_or_else(|| wrong("no sample"))?;
        let of = current.as_ref().map(|(name, _, _)| name.as_str());
        let family = of.and_then(|of| scrape.families.get(of));
        let suffix = of.and_then(|of| name.strip_prefix(of));
        let fits = match (family.map(|family| family.kind.as_str()), suffix) {
            (Some("counter"), Some("_total")) => value >= 0.0,
            (Some("gauge"), Some("")) => true,
            (Some("histogram"), Some("_bucket")) => labels.contains_key("le"),
            (Some("histogram"), Some("_sum" | "_count")) => !labels.contains_key("le"),
            _ => false,
        };
        if !fits || !seen.insert((name.clone(), format!("{labels:?}"))) {
            return Err(wrong("of another family, or twice"));
        }
        scrape.samples.push((name, labels, value));
    }
    histograms(&scrape)?;
    Ok(scrape)
}

fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && name.chars().all(fits)
}

/// `name{label="value",…} number`.
fn sample(line: &str) -> Option<(String, Labels, f64)> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            if !is_name(label) || labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            rest = match after.strip_prefix(',') {
                Some(more) if !more.starts_with('}') => more,
                _ => after,
            };
        }
        rest = rest.strip_prefix('}')?;
    }
    let number = rest.strip_prefix(' ')?;
    let value = match number {
        "+Inf" => f64::INFINITY,
        _ => number.parse().ok()?,
    };
    (is_name(name) && !value.is_nan()).then(|| (name.to_owned(), labels, value))
}

/// A label's value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text.char_indices();
    while let Some((at, c)) = rest.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match rest.next()?.1 {
                'n' => '\n',
                same @ ('\\' | '"') => same,
                _ => return None,
            }),
            _ => value.push(c),
        }
    }
    None
}

/// Buckets rise with their bounds up to the count.
fn histograms(scrape: &Scrape) -> Result<(), String> {
    let kinds = scrape.families.iter();
    for (name, _) in kinds.filter(|(_, family)| family.kind == "histogram") {
        let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
        for (sample, labels, value) in &scrape.samples {
            if *sample == format!("{name}_bucket") {
                let mut labels = labels.clone();
                let bound = labels.remove("le").unwrap_or_default();
                let bound = match bound.as_str() {
                    "+Inf" => f64::INFINITY,
                    _ => bound
                        .parse()
                        .map_err(|_| format!("{name}: bound {bound}"))?,
                };
                series.entry(labels).or_default().push((bound, *value));
            }
        }
        for (labels, buckets) in &series {
            let rises = |pair: &[(f64, f64)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
            let known: Vec<(&str, &str)> = labels
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            let count = scrape.value(&format!("{name}_count"), &known);
            let last = buckets.last().copied();
            if !buckets.windows(2).all(rises) || last.map(|(_, n)| n) != count {
                return Err(format!("{name}: {buckets:?}, count {count:?}"));
            }
            if last.map(|(bound, _)| bound) != Some(f64::INFINITY) {
                return Err(format!("{name}: no bucket without bound"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_refused() {
        let good = "# HELP a_b Bytes.\n# TYPE a_b counter\na_b_total{x=\"q\\\"}\\n\"} 7\n# EOF\n";
        let scrape = parse(good).unwrap();
        assert_eq!(scrape.value("a_b_total", &[("x", "q\"}\n")]), Some(7.0));
        for wrong in [
            good.replace("# EOF\n", ""),
            good.replace("a_b_total", "a_b"),
            good.replace("a_b_total", "a_c_total"),
            good.replace(" 7", " seven"),
            good.replace("\\n", "\\t"),
            good.replace("} 7\n", "} 7\na_b_total{x=\"q\\\"}\\n\"} 8\n"),
            good.replace("# TYPE a_b counter\n", ""),
            good.replace("# EOF\n", &good.replace("x=", "y=")),
        ] {
            assert!(parse(&wrong).is_err(), "{wrong}");
        }
    }
}
