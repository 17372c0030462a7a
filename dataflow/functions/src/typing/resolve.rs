//! Overload resolution: which entry a name with given arguments means, and the common type of
//! values.
//!
//! Source: PostgreSQL's `func_select_candidate` and `select_common_type` (`parse_func.c`,
//! `parse_coerce.c`). The steps, until one entry is left:
//!
//! 1. An entry with exactly these types.
//! 2. For an operator with one quoted literal: the entry with the other operand's type twice.
//! 3. Of the entries that implicit casts allow, those with the most exact types.
//! 4. Of these, those with the most exact or preferred types.
//! 5. For each quoted literal: entries that take text there, otherwise entries of a preferred type.
//! 6. If all known types are the same: the entry that takes only this type.

use arrow::datatypes::DataType;
use datafusion_common::ScalarValue;
use tidemill_ir::types;

use crate::entry::{Body, Entry, Gives, Kind};
use crate::numeric::decimals::sized;
use crate::typing::table::TABLE;

/// The type of an argument.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Argument {
    /// A quoted literal or NULL, which takes the type that is needed.
    Unknown,
    /// A value of this type.
    Known(DataType),
}

impl Argument {
    /// The argument of a type; Arrow's Null is unknown.
    pub(crate) fn of(kind: &DataType) -> Self {
        match kind {
            DataType::Null => Self::Unknown,
            kind => Self::Known(kind.clone()),
        }
    }

    /// The type, if it is known.
    pub(crate) fn known(&self) -> Option<&DataType> {
        match self {
            Self::Unknown => None,
            Self::Known(kind) => Some(kind),
        }
    }
}

/// An entry that was found, and the kinds that its arguments are cast to first.
///
/// The caller casts each argument to its kind ([`cast_type`]) and calls the entry.
pub(crate) struct Resolved {
    /// The entry.
    pub(crate) entry: &'static Entry,
    /// The kinds of its arguments.
    pub(crate) takes: Vec<Kind>,
    /// The type of its result.
    pub(crate) result: DataType,
}

/// PostgreSQL's type categories (`typcategory`). Types of one category are cast to each other; one
/// of them is preferred.
#[derive(PartialEq, Clone, Copy)]
enum Category {
    /// Category B.
    Bool,
    /// Category N.
    Number,
    /// Category S.
    Text,
    /// Category U, of bytea.
    Bytes,
    /// Category D.
    Moment,
    /// Category T.
    Interval,
    /// Category U, of json.
    Json,
    /// Category U, of jsonb.
    Jsonb,
    /// Category A.
    Array,
}

/// The category of a kind.
fn category(kind: Kind) -> Category {
    match kind {
        Kind::Bool => Category::Bool,
        Kind::Int | Kind::Long | Kind::Numeric | Kind::Real | Kind::Double => Category::Number,
        Kind::Text => Category::Text,
        Kind::Bytes => Category::Bytes,
        Kind::Date | Kind::Timestamp | Kind::Timestamptz => Category::Moment,
        Kind::Interval => Category::Interval,
        Kind::Json => Category::Json,
        Kind::Jsonb => Category::Jsonb,
        Kind::Texts => Category::Array,
    }
}

/// Whether a kind is the preferred type of its category (`typispreferred`).
fn preferred(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Bool | Kind::Double | Kind::Text | Kind::Timestamptz | Kind::Interval
    )
}

/// Whether PostgreSQL casts implicitly (`pg_cast.castcontext` is `i`).
///
/// Each pair is listed, also those that follow from two others.
pub(crate) fn implicit(from: Kind, to: Kind) -> bool {
    use Kind::{Date, Double, Int, Json, Jsonb, Long, Numeric, Real, Timestamp, Timestamptz};
    from == to
        || matches!(
            (from, to),
            (Int, Long | Numeric | Real | Double)
                | (Long, Numeric | Real | Double)
                | (Numeric, Real | Double)
                | (Real, Double)
                | (Date, Timestamp | Timestamptz)
                | (Timestamp, Timestamptz)
                // A captured column of the type jsonb is a json here.
                | (Json, Jsonb)
        )
}

/// An entry that may be meant.
type Candidate = &'static Entry;

/// The best entries for arguments of these kinds (`func_select_candidate`); None is an unknown
/// kind. More than one entry means that the call is ambiguous.
///
/// `kinds` has one element for each argument, and each candidate takes as many.
fn best(mut candidates: Vec<Candidate>, kinds: &[Option<Kind>]) -> Vec<Candidate> {
    let exact = |entry: &Candidate| {
        let pairs = entry.takes.iter().zip(kinds);
        pairs.filter(|(take, kind)| Some(**take) == **kind).count()
    };
    if candidates.len() > 1 {
        let most = candidates.iter().map(exact).max();
        candidates.retain(|entry| Some(exact(entry)) == most);
    }
    let liked = |entry: &Candidate| {
        let pairs = entry.takes.iter().zip(kinds);
        let liked = |(take, kind): &(&Kind, &Option<Kind>)| {
            kind.is_some_and(|kind| kind == **take || preferred(**take))
        };
        pairs.filter(liked).count()
    };
    if candidates.len() > 1 {
        let most = candidates.iter().map(liked).max();
        candidates.retain(|entry| Some(liked(entry)) == most);
    }
    for (place, _) in kinds.iter().enumerate().filter(|(_, kind)| kind.is_none()) {
        if candidates.len() < 2 {
            break;
        }
        let take = |entry: &Candidate| entry.takes.get(place).copied();
        let texts = |entry: &Candidate| take(entry).map(category) == Some(Category::Text);
        if candidates.iter().any(texts) {
            candidates.retain(texts);
        } else if candidates
            .iter()
            .any(|entry| take(entry).is_some_and(preferred))
        {
            candidates.retain(|entry| take(entry).is_some_and(preferred));
        }
    }
    if candidates.len() > 1
        && let Some(one) = kinds.iter().flatten().next()
        && kinds.iter().flatten().all(|kind| kind == one)
    {
        let same: Vec<Candidate> = candidates
            .iter()
            .copied()
            .filter(|entry| entry.takes.iter().all(|take| take == one))
            .collect();
        if !same.is_empty() {
            candidates = same;
        }
    }
    candidates
}

/// The kinds of the arguments. Fails for a type that no function takes.
fn kinds_of(name: &str, arguments: &[Argument]) -> Result<Vec<Option<Kind>>, String> {
    let kind = |argument: &Argument| match argument {
        Argument::Unknown => Ok(None),
        Argument::Known(kind) => match Kind::of(kind) {
            Some(kind) => Ok(Some(kind)),
            None => Err(format!(
                "{name} of {} is not supported in views",
                types::name(kind)
            )),
        },
    };
    arguments.iter().map(kind).collect()
}

/// The entry that `name` means with these arguments, and the type of its result.
///
/// # Errors
/// No entry or more than one fits, the entry is refused, or the result's scale cannot be computed.
///
/// `constants` has the value of each argument that is a literal, which numeric results need for
/// their scale.
pub(crate) fn resolved(
    name: &str,
    arguments: &[Argument],
    constants: &[Option<ScalarValue>],
) -> Result<Resolved, String> {
    let kinds = kinds_of(name, arguments)?;
    let all: Vec<Candidate> = TABLE.iter().filter(|entry| entry.name == name).collect();
    let fits = |entry: &Candidate| {
        (entry.takes.len() == kinds.len() || takes_more(entry, kinds.len()))
            && taken(entry)
                .zip(&kinds)
                .all(|(take, kind)| kind.is_none_or(|kind| implicit(kind, take)))
    };
    // An operator with one quoted literal: the literal has the type of the other operand, if there
    // is such an entry.
    let assumed = match kinds.as_slice() {
        [Some(one), None] | [None, Some(one)] => Some([*one, *one]),
        _ => None,
    };
    let operator = !name.starts_with(|c: char| c.is_ascii_lowercase());
    let same = assumed.filter(|_| operator).and_then(|pair| {
        all.iter()
            .copied()
            .find(|entry| entry.takes == pair.as_slice())
    });
    let exact = all.iter().copied().find(|entry| {
        let takes = entry.takes.iter().map(|kind| Some(*kind));
        takes.eq(kinds.iter().copied())
    });
    if exact.is_none() && ambiguous(name, &kinds) {
        return Err(format!(
            "{} may mean several things: cast it",
            signature(name, arguments)
        ));
    }
    let found = match exact.or(same) {
        Some(entry) => vec![entry],
        None => best(all.iter().copied().filter(fits).collect(), &kinds),
    };
    match found.as_slice() {
        [entry] => {
            if let Body::Refused(why) = entry.body {
                return Err(format!(
                    "{} is not supported in views: {why}",
                    signature(name, arguments)
                ));
            }
            if of_no_array(entry, &kinds) {
                return Err(format!(
                    "{} takes an array whose type is known: cast it, as in '{{a}}'::text[]",
                    signature(name, arguments)
                ));
            }
            let result = result(entry, arguments, constants)?;
            Ok(Resolved {
                entry: planned(entry),
                takes: taken(entry).take(kinds.len()).collect(),
                result,
            })
        }
        [] => Err(unknown(name, arguments, &all)),
        _ => Err(format!(
            "{} may mean several functions: cast an argument",
            signature(name, arguments)
        )),
    }
}

/// Whether PostgreSQL's function takes an array of any type (`anyarray`), and no argument says of
/// which.
fn of_no_array(entry: &Entry, kinds: &[Option<Kind>]) -> bool {
    let any = matches!(
        entry.name,
        "array_to_string" | "array_length" | "cardinality"
    );
    any && kinds.first().is_some_and(Option::is_none)
}

/// Whether an entry takes this many arguments, of which the last ones have one kind. Functions of
/// the SQL standard with any number of arguments have typing rules of their own.
fn takes_more(entry: &Entry, count: usize) -> bool {
    entry.more && entry.name.starts_with("json") && count >= entry.takes.len()
}

/// The kinds of the arguments of an entry, and the last one again and again.
fn taken(entry: &Entry) -> impl Iterator<Item = Kind> {
    let last = entry.takes.last().into_iter().cycle();
    entry.takes.iter().chain(last).copied()
}

/// The entry that stands in plans. `substr` is `substring` there, as in the plans of releases in
/// which the two were one function.
fn planned(entry: &'static Entry) -> &'static Entry {
    let same = |other: &&Entry| other.name == "substring" && other.takes == entry.takes;
    match entry.name {
        "substr" => TABLE.iter().find(same).unwrap_or(entry),
        _ => entry,
    }
}

/// Whether PostgreSQL finds several operators where the function table has one: those of money, of
/// times of the day and of geometric types, which views do not have.
///
/// `date + '1 day'` is an example: PostgreSQL has `date + interval`, `date + time` and `date +
/// int`.
fn ambiguous(name: &str, kinds: &[Option<Kind>]) -> bool {
    matches!(
        (name, kinds),
        ("+", [Some(Kind::Date), None] | [None, Some(Kind::Date)])
            | ("*" | "/" | "+" | "-" | "%", [None, None])
            | ("trunc", [None])
    )
}

/// The type of an entry's result. For numerics it follows from the types that the arguments are
/// cast to.
pub(crate) fn result(
    entry: &Entry,
    arguments: &[Argument],
    constants: &[Option<ScalarValue>],
) -> Result<DataType, String> {
    match entry.gives {
        Gives::Kind(kind) => kind
            .arrow()
            .ok_or_else(|| "a numeric needs a scale".to_owned()),
        Gives::Numeric(scale) => {
            let takes = entry
                .takes
                .iter()
                .chain(entry.takes.last().into_iter().cycle());
            let kinds = arguments
                .iter()
                .zip(takes)
                .zip(constants.iter().map(Some).chain(std::iter::repeat(None)));
            let kinds = kinds.map(|((argument, take), constant)| {
                cast_type(argument, *take, constant.and_then(Option::as_ref))
            });
            let kinds: Vec<DataType> = kinds.collect::<Result<_, _>>()?;
            let constants: Vec<Option<&ScalarValue>> =
                constants.iter().map(Option::as_ref).collect();
            let (precision, scale) = scale(&kinds, &constants)?;
            Ok(DataType::Decimal128(precision, scale))
        }
    }
}

/// The type that an argument has after the implicit cast to a kind.
///
/// # Errors
/// A quoted literal is not a numeric, or a value of this type has no numeric type of its own.
pub(crate) fn cast_type(
    argument: &Argument,
    to: Kind,
    constant: Option<&ScalarValue>,
) -> Result<DataType, String> {
    if let Some(kind) = to.arrow() {
        return Ok(kind);
    }
    match argument.known() {
        Some(kind @ DataType::Decimal128(..)) => Ok(kind.clone()),
        Some(DataType::Int32) => Ok(DataType::Decimal128(10, 0)),
        Some(DataType::Int64) => Ok(DataType::Decimal128(19, 0)),
        None => {
            // A quoted literal has the scale that it is written with.
            let text = match constant {
                Some(ScalarValue::Utf8(Some(text))) => text.as_str(),
                _ => "0",
            };
            let number = crate::numeric::parse::numeric(text)?;
            let (precision, scale) = sized(
                i32::try_from(number.digits.unsigned_abs().to_string().len()).unwrap_or(38),
                number.scale,
            )?;
            Ok(DataType::Decimal128(precision, scale))
        }
        Some(other) => Err(format!(
            "{} cannot become a numeric of its own",
            types::name(other)
        )),
    }
}

/// A call as the error messages write it: types instead of values.
///
/// Operators are written between or before the types, and functions before parentheses.
fn signature(name: &str, arguments: &[Argument]) -> String {
    let kinds = arguments.iter().map(|argument| match argument {
        Argument::Unknown => "unknown".to_owned(),
        Argument::Known(kind) => types::name(kind),
    });
    let kinds: Vec<String> = kinds.collect();
    match kinds.as_slice() {
        [one, other] if !name.starts_with(|c: char| c.is_ascii_lowercase()) => {
            format!("{one} {name} {other}")
        }
        [one] if !name.starts_with(|c: char| c.is_ascii_lowercase()) => format!("{name} {one}"),
        _ => format!("{name}({})", kinds.join(", ")),
    }
}

/// The error of a call that no entry fits, with at most eight entries of the same name.
fn unknown(name: &str, arguments: &[Argument], all: &[Candidate]) -> String {
    let known = all
        .iter()
        .filter(|entry| !matches!(entry.body, Body::Refused(_)));
    let known: Vec<String> = known.take(8).map(|entry| shown(entry)).collect();
    let signature = signature(name, arguments);
    match known.is_empty() {
        true => format!("{signature} is not supported in views"),
        false => format!(
            "{signature} is not supported in views: there is {}",
            known.join(", ")
        ),
    }
}

/// An entry as SQL writes it, with types instead of values.
pub(crate) fn shown(entry: &Entry) -> String {
    let arguments: Vec<Argument> = entry
        .takes
        .iter()
        .map(|kind| Argument::Known(kind.arrow().unwrap_or(DataType::Decimal128(38, 0))))
        .collect();
    signature(entry.name, &arguments).replace("numeric(38,0)", "numeric")
}

/// The common type of the values of CASE, COALESCE, IN, UNION and others (`select_common_type`);
/// None if all values are quoted literals.
///
/// # Errors
/// Two types have no common type.
///
/// Each type is combined with the common type of those before it, as in PostgreSQL. Numerics get
/// the greater scale.
pub(crate) fn common(arguments: &[Argument]) -> Result<Option<DataType>, String> {
    let mut found: Option<DataType> = None;
    for kind in arguments.iter().filter_map(Argument::known) {
        found = Some(match found {
            None => kind.clone(),
            Some(before) => pair(&before, kind)?,
        });
    }
    Ok(found)
}

/// The common type of two types.
fn pair(one: &DataType, other: &DataType) -> Result<DataType, String> {
    if one == other {
        return Ok(one.clone());
    }
    let unlike = || {
        format!(
            "{} and {} do not go together: cast one",
            types::name(one),
            types::name(other)
        )
    };
    let (Some(a), Some(b)) = (Kind::of(one), Kind::of(other)) else {
        return Err(unlike());
    };
    let kind = match (implicit(a, b), implicit(b, a)) {
        (true, true) => Kind::Numeric,
        (true, false) => b,
        (false, true) => a,
        (false, false) => return Err(unlike()),
    };
    if kind != Kind::Numeric {
        return kind.arrow().ok_or_else(unlike);
    }
    let one = cast_type(&Argument::of(one), kind, None)?;
    let other = cast_type(&Argument::of(other), kind, None)?;
    let (DataType::Decimal128(p, s), DataType::Decimal128(q, t)) = (&one, &other) else {
        return Err(unlike());
    };
    if s == t {
        let precision = i32::from(*p.max(q));
        return sized(precision, i32::from(*s)).map(|(p, s)| DataType::Decimal128(p, s));
    }
    // In PostgreSQL each value keeps its own scale. Therefore this numeric cannot be written as
    // text. The greatest precision marks this.
    let scale = i32::from(*s.max(t));
    sized(38, scale).map(|(p, s)| DataType::Decimal128(p, s))
}

/// One entry of the function table, for the documentation and for the tests.
#[derive(Debug, Clone)]
pub struct Supported {
    /// The name in SQL.
    pub name: &'static str,
    /// The types of the arguments.
    pub takes: &'static [Kind],
    /// Whether more arguments like the last one may follow.
    pub more: bool,
    /// The type of the result. The scale of a numeric follows from the arguments.
    pub gives: Kind,
    /// The reason why it is refused, if it is.
    pub refused: Option<&'static str>,
    /// Whether some rows may fail that PostgreSQL evaluates.
    pub narrower: bool,
}

/// All entries of the function table.
///
/// The table includes the refused entries (with the reason) and the internal entries, whose names
/// SQL cannot call ([`crate::function_names`] lists those that it can).
#[must_use]
pub fn supported() -> Vec<Supported> {
    let each = |entry: &Entry| Supported {
        name: entry.name,
        takes: entry.takes,
        more: entry.more,
        gives: match entry.gives {
            Gives::Kind(kind) => kind,
            Gives::Numeric(_) => Kind::Numeric,
        },
        refused: match entry.body {
            Body::Refused(why) => Some(why),
            _ => None,
        },
        narrower: entry.narrower,
    };
    TABLE.iter().map(each).collect()
}

/// A literal with PostgreSQL's type: a whole number that fits 32 bits is an int.
///
/// The parser reads every whole number as 64 bits. The least int is excluded, because SQL writes it
/// as minus 2147483648, and that number is a bigint in PostgreSQL.
pub(crate) fn narrowed(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Int64(Some(number)) if number != i64::from(i32::MIN) => {
            i32::try_from(number).map_or(value, |number| ScalarValue::Int32(Some(number)))
        }
        ScalarValue::UInt64(Some(number)) => {
            ScalarValue::Decimal128(Some(i128::from(number)), 20, 0)
        }
        other => other,
    }
}
