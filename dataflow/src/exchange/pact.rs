//! The pact by which an operator's input crosses workers.
//!
//! Operators send and take vectors; between the two ends stand [`Rows`]. Values are dealt out to
//! the workers by timely's own exchange.

use std::rc::Rc;

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
use crate::Error;

/// Sends each value to the worker that a function names, below the number of workers.
pub struct Crossing<F> {
    engine: Engine,
    wrong: Box<dyn FnMut(Error)>,
    route: F,
}

impl<F> std::fmt::Debug for Crossing<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Crossing({})", self.engine)
    }
}

impl<F> Crossing<F> {
    /// A pact that uses one codec in all processes. `wrong` is told of bytes that this codec cannot
    /// have laid, and should not return: what they held is lost.
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

/// The end that sends to one worker.
pub struct Outward<P> {
    pusher: P,
    engine: Engine,
}

impl<T, D, P: Push<Message<T, Rows<D>>>> Push<Message<T, Vec<D>>> for Outward<P> {
    #[inline]
    fn push(&mut self, message: &mut Option<Message<T, Vec<D>>>) {
        let values = message.take();
        let mut rows = values.map(|it| Message::new(it.stamp, Rows::Values(it.data, self.engine)));
        self.pusher.push(&mut rows);
        // What was laid out into bytes comes back, and its memory serves for the next batch.
        if let Some(left) = rows
            && let Rows::Values(values, _) = left.data
        {
            *message = Some(Message::new(left.stamp, values));
        }
    }
}

/// The end that takes what came from all workers.
pub struct Inward<T, D: Crosses> {
    puller: Pulls<T, D>,
    current: Option<Message<T, Vec<D>>>,
    engine: Engine,
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
