//! The exchange pact of timely for the values of [`Crosses`].
//!
//! Operators send and receive vectors. Between the two ends, timely moves [`Rows`]. Timely's own
//! exchange distributes the values over the workers.
//!
//! ```text
//! operator ─ Vec<D> ─► Exchange by route ─► Outward: Rows ─► timely ─► Inward ─ Vec<D> ─► operator
//! ```

use std::rc::Rc;

use tidemill_log::Error;
use timely::communication::{Pull, Push};
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::Message;
use timely::dataflow::channels::pact::{LogPuller, LogPusher, ParallelizationContract};
use timely::dataflow::channels::pushers::Exchange;
use timely::dataflow::channels::pushers::exchange::DrainContainerDistributor;
use timely::logging::TimelyLogger;
use timely::progress::Timestamp;
use timely::worker::Worker;

use super::rows::Rows;
use super::{Crosses, Engine};

/// Sends each value to the worker whose index the function `route` returns for the value.
pub struct Crossing<F> {
    /// The codec.
    engine: Engine,
    /// Called with the error of bytes that cannot be read.
    wrong: Box<dyn FnMut(Error)>,
    /// Returns the index of the receiving worker for a value.
    route: F,
}

impl<F> std::fmt::Debug for Crossing<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Crossing({})", self.engine)
    }
}

impl<F> Crossing<F> {
    /// A pact that uses the same codec in all processes. `wrong` is called for bytes that the codec
    /// cannot have written. It should not return, because the rows in these bytes are lost.
    pub fn new(engine: Engine, wrong: impl FnMut(Error) + 'static, route: F) -> Self {
        Self {
            engine,
            wrong: Box::new(wrong),
            route,
        }
    }
}

type Pushes<T, D> = LogPusher<Box<dyn Push<Message<T, Rows<D>>>>>;
type Pulls<T, D> = LogPuller<Box<dyn Pull<Message<T, Rows<D>>>>>;
type Dealing<D, F> = DrainContainerDistributor<CapacityContainerBuilder<Vec<D>>, F>;

impl<T, D, F> ParallelizationContract<T, Vec<D>> for Crossing<F>
where
    T: Timestamp,
    D: Crosses,
    F: FnMut(&D) -> u64 + 'static,
{
    type Pusher = Exchange<T, Outward<Pushes<T, D>>, Dealing<D, F>>;
    type Puller = Inward<T, D>;

    fn connect(
        self,
        worker: &Worker,
        identifier: usize,
        address: Rc<[usize]>,
        logging: Option<TimelyLogger>,
    ) -> (Self::Pusher, Self::Puller) {
        let (pushers, puller) = worker.allocate::<Message<T, Rows<D>>>(identifier, address);
        let (me, engine) = (worker.index(), self.engine);
        let pushers = pushers.into_iter().enumerate().map(|(to, pusher)| {
            let pusher = LogPusher::new(pusher, me, to, identifier, logging.clone());
            Outward { pusher, engine }
        });
        let dealing = Dealing::new(self.route, worker.peers());
        let inward = Inward {
            puller: LogPuller::new(puller, me, identifier, logging.clone()),
            current: None,
            engine,
            wrong: self.wrong,
        };
        (Exchange::new(pushers.collect(), dealing), inward)
    }
}

/// The sending end towards one worker.
pub struct Outward<P> {
    /// Timely's end of the channel.
    pusher: P,
    /// The codec.
    engine: Engine,
}

impl<T, D, P: Push<Message<T, Rows<D>>>> Push<Message<T, Vec<D>>> for Outward<P> {
    #[inline]
    fn push(&mut self, message: &mut Option<Message<T, Vec<D>>>) {
        let values = message.take();
        let mut rows = values.map(|it| Message::new(it.stamp, Rows::Values(it.data, self.engine)));
        self.pusher.push(&mut rows);
        // If the values were serialized, the vector comes back, and its memory is used for the next
        // batch.
        if let Some(left) = rows
            && let Rows::Values(values, _) = left.data
        {
            *message = Some(Message::new(left.stamp, values));
        }
    }
}

/// The receiving end, for what all workers sent to this one.
pub struct Inward<T, D: Crosses> {
    /// Timely's end of the channel.
    puller: Pulls<T, D>,
    /// The batch that was handed out last.
    current: Option<Message<T, Vec<D>>>,
    /// The codec, for bytes of other processes.
    engine: Engine,
    /// Called with the error of bytes that cannot be read.
    wrong: Box<dyn FnMut(Error)>,
}

impl<T, D: Crosses> Pull<Message<T, Vec<D>>> for Inward<T, D> {
    #[inline]
    fn pull(&mut self) -> &mut Option<Message<T, Vec<D>>> {
        self.current = None;
        if let Some(rows) = self.puller.pull().take() {
            match rows.data.into_values(self.engine) {
                Ok(values) => self.current = Some(Message::new(rows.stamp, values)),
                Err(error) => (self.wrong)(error),
            }
        }
        &mut self.current
    }
}
