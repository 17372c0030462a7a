//! What the parts of one reduce share: scope, context and the schema of group keys.

use std::rc::Rc;

use arrow::datatypes::SchemaRef;
use differential_dataflow::VecCollection;
use tidemill_ir::Epoch;
use tidemill_ir::row::Row;
use timely::dataflow::Scope;

use crate::context::Context;

/// Group keys, each with the output columns of one part as an encoded row.
pub(crate) type PartRows<'scope> = VecCollection<'scope, Epoch, (Row, Row), isize>;

/// What all parts of one reduce share.
pub(crate) struct Grouping<'scope> {
    /// The dataflow that operators are added to.
    pub(crate) scope: Scope<'scope, Epoch>,
    /// What operators share.
    pub(crate) context: Rc<Context>,
    /// The schema of the group keys.
    pub(crate) keys: SchemaRef,
}
