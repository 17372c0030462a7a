//! The SQL catalog of one file: tables, views, functions, as DataFusion's planner asks for them.
//!
//! Functions are those of the table in [`tidemill_functions`], and exactly the aggregates that the
//! renderer implements. Everything else is refused by name; see [`super::refuse`].
//!
//! Input: the tables and views that the statements so far have created. Output: the answers to
//! DataFusion's [`ContextProvider`], which resolves each name in a query. A name means the same in
//! all views of a file, and a table or view is never replaced.

pub(crate) mod names;
pub(crate) mod now;
pub(crate) mod row_number;
pub(crate) mod single_row;
pub(crate) mod sql_types;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion_common::config::ConfigOptions;
use datafusion_common::{Result, TableReference, plan_err};
use datafusion_expr::planner::{ContextProvider, ExprPlanner, TypePlanner};
use datafusion_expr::{
    AggregateUDF, HigherOrderUDF, ScalarUDF, TableSource, Volatility, WindowUDF,
};
use datafusion_functions_aggregate::planner::AggregateFunctionPlanner;
use datafusion_functions_aggregate::{count, grouping, min_max};
use datafusion_sql::sqlparser::ast::DataType as SqlType;
use names::Names;
use row_number::RowNumber;
use tidemill_ir::{AggregateFunction, Envelope, Format};
use tidemill_log::schema::{SourceType, Unusable};

/// The name of the function that tells grouping sets apart.
pub(crate) const GROUPING: &str = "grouping";

/// For each column: the source's type, if the column holds the text of a value of that type.
///
/// `None` is a column with a type of its own, such as an int. See [`super::logical::source_types`].
pub(super) type SourceTypes = Vec<Option<SourceType>>;

/// A table as its `CREATE TABLE` and the registry describe it.
#[derive(Debug)]
pub(super) struct Table {
    /// The table's name in SQL.
    pub(super) name: String,
    /// The topic that it reads.
    pub(super) topic: String,
    /// The encoding of values.
    pub(super) format: Format,
    /// How records become rows.
    pub(super) envelope: Envelope,
    /// Debezium's placeholder for a large value that a change left unchanged, besides the default
    /// one.
    pub(super) unavailable: Option<Arc<[u8]>>,
    /// All columns of the table.
    pub(super) schema: SchemaRef,
    /// For each column of a JSON table: what its type demands besides the type that it is stored
    /// in.
    pub(super) asked: Vec<Option<String>>,
    /// For each column: the source's type, if values of it travel as text.
    pub(super) source_types: SourceTypes,
    /// The names of the columns that make up the record key.
    pub(super) key: Vec<String>,
    /// Fields of the records that cannot be columns.
    pub(super) unusable: Vec<Unusable>,
}

/// What a table scan in a logical plan reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// Index into [`Catalog::tables`].
    Table(usize),
    /// Index into [`Catalog::views`].
    View(usize),
}

/// A relation in the form that DataFusion expects.
#[derive(Debug)]
pub(super) struct Scanned {
    /// Which table or view it is.
    pub(super) relation: Relation,
    /// Its columns.
    schema: SchemaRef,
}

impl TableSource for Scanned {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// Everything that SQL in the file may name so far.
pub(super) struct Catalog {
    /// The tables, in the order of the file.
    pub(super) tables: Vec<Table>,
    /// The views so far: name and columns.
    pub(super) views: Vec<(String, SchemaRef)>,
    /// For each view: the source types of its columns that travel as text.
    pub(super) view_types: Vec<SourceTypes>,
    /// All scalar functions of DataFusion by name, for messages about those that views may not use.
    scalars: BTreeMap<String, Arc<ScalarUDF>>,
    /// What replaces operators and special syntax by stand-ins.
    planners: Vec<Arc<dyn ExprPlanner>>,
    /// DataFusion's options; the defaults.
    options: ConfigOptions,
}

/// The renderer's aggregate for a name; `None` if the renderer does not implement it.
///
/// `name` is in lower case.
pub(super) fn aggregate(name: &str) -> Option<AggregateFunction> {
    AggregateFunction::named(name)
}

/// The names of the aggregates that are second names of others.
const ALIASES: [&str; 3] = ["every", "stddev", "variance"];

/// The names of the aggregates, in alphabetical order.
pub(super) fn aggregates() -> BTreeSet<&'static str> {
    let functions = AggregateFunction::ALL.into_iter();
    functions
        .map(AggregateFunction::name)
        .chain(ALIASES)
        .collect()
}

impl Catalog {
    /// A catalog without tables and views.
    ///
    /// DataFusion's own scalar functions are listed only to tell "not supported" from "unknown".
    pub(super) fn new() -> Self {
        let mut scalars = BTreeMap::new();
        for function in datafusion_functions::all_default_functions() {
            for name in function.aliases() {
                scalars.insert(name.clone(), Arc::clone(&function));
            }
            scalars.insert(function.name().to_owned(), function);
        }
        Self {
            tables: Vec::new(),
            views: Vec::new(),
            view_types: Vec::new(),
            scalars,
            planners: vec![Arc::new(AggregateFunctionPlanner), Arc::new(Names)],
            options: ConfigOptions::default(),
        }
    }

    /// The relation of a name, with its columns.
    ///
    /// Tables and views share one name space, so the order of the two lookups does not matter.
    pub(super) fn find(&self, name: &str) -> Option<(Relation, &SchemaRef)> {
        let table = self.tables.iter().position(|table| table.name == name);
        let view = || self.views.iter().position(|(view, _)| view == name);
        match table {
            Some(index) => Some((Relation::Table(index), &self.tables.get(index)?.schema)),
            None => {
                let index = view()?;
                Some((Relation::View(index), &self.views.get(index)?.1))
            }
        }
    }

    /// Whether any table or view has a column with this name.
    ///
    /// `name` must be folded already ([`normal`](super::script::normal)).
    pub(super) fn has_column(&self, name: &str) -> bool {
        let tables = self.tables.iter().map(|table| &table.schema);
        let views = self.views.iter().map(|(_, schema)| schema);
        tables
            .chain(views)
            .any(|schema| schema.field_with_name(name).is_ok())
    }

    /// The names of all tables and views.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let tables = self.tables.iter().map(|table| table.name.as_str());
        tables.chain(self.views.iter().map(|(name, _)| name.as_str()))
    }

    /// A scalar function of DataFusion by name, including those that views may not use.
    pub(super) fn scalar(&self, name: &str) -> Option<&Arc<ScalarUDF>> {
        self.scalars.get(name)
    }

    /// The names of all functions that views may use.
    pub(super) fn functions() -> impl Iterator<Item = &'static str> {
        tidemill_functions::function_names()
            .chain(aggregates())
            .chain(tidemill_functions::WINDOW_FUNCTIONS)
            .chain([row_number::NAME])
    }
}

/// Whether the same arguments always give the same result, also in the next release. Replay and
/// retraction depend on this.
///
/// `version()` is immutable for DataFusion, and changes with each of its releases.
pub(super) fn immutable(function: &ScalarUDF) -> bool {
    function.signature().volatility == Volatility::Immutable && function.name() != "version"
}

/// Gives the casts our column types, where DataFusion would choose other ones.
///
/// DataFusion would give `timestamp` nanoseconds, for example, and a column has microseconds.
#[derive(Debug)]
struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        match sql_types::of_cast(sql_type) {
            Ok(field) => Ok(Some(Arc::new(field))),
            Err(why) => plan_err!("{why}"),
        }
    }
}

impl ContextProvider for Catalog {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        match self.find(name.table()) {
            Some((relation, schema)) => Ok(Arc::new(Scanned {
                relation,
                schema: Arc::clone(schema),
            })),
            None => plan_err!("unknown table `{name}`"),
        }
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        match name {
            now::NAME => Some(now::Now::function()),
            name => tidemill_functions::function(name),
        }
    }

    fn get_higher_order_meta(&self, _: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        if name == GROUPING {
            return Some(grouping::grouping_udaf());
        }
        Some(match aggregate(name)? {
            AggregateFunction::Count => count::count_udaf(),
            AggregateFunction::Min => min_max::min_udaf(),
            AggregateFunction::Max => min_max::max_udaf(),
            function => tidemill_functions::declared(function),
        })
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        match name {
            row_number::NAME => Some(Arc::new(WindowUDF::from(RowNumber::new()))),
            name => tidemill_functions::window(name),
        }
    }

    fn get_variable_type(&self, _: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        &self.options
    }

    fn udf_names(&self) -> Vec<String> {
        tidemill_functions::function_names()
            .map(str::to_owned)
            .collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        aggregates().into_iter().map(str::to_owned).collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        let names = tidemill_functions::WINDOW_FUNCTIONS.iter();
        names
            .chain(&[row_number::NAME])
            .map(|name| (*name).to_owned())
            .collect()
    }
}
