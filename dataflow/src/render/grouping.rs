//! What the parts of one reduce share.

use std::rc::Rc;

use arrow::datatypes::SchemaRef;
use differential_dataflow::VecCollection;
use timely::dataflow::Scope;

use crate::Epoch;
use crate::context::Context;
use crate::row::Row;

/// Groups' keys, and their output columns of one part as a row.
pub(crate) type PartRows<'scope> = VecCollection<'scope, Epoch, (Row, Row), isize>;

/// What all parts of one reduce share.
pub(crate) struct Grouping<'scope> {
    pub(crate) scope: Scope<'scope, Epoch>,
    pub(crate) context: Rc<Context>,
    /// Schema of the group keys.
    pub(crate) keys: SchemaRef,
}
