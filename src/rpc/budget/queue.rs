//! Who has how much of a budget, and who waits for some.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use tokio::sync::oneshot;

use super::MessageBytes;

/// What a message asks for, and whose it is.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub caller: String,
    pub connection: Option<SocketAddr>,
    pub pieces: usize,
}

/// Where a message's bytes are awaited.
pub(super) type Sender = oneshot::Sender<MessageBytes>;

/// What has been granted, and to whom it has to be given.
pub(super) type Granted = Vec<(Asked, Sender)>;

/// Pieces that are free, and those who have or want some.
#[derive(Debug)]
pub(super) struct Queue {
    free: usize,
    largest: usize,
    callers: HashMap<String, OfCaller>,
    /// How many messages wait, and how many ever did.
    waiting: usize,
    numbers: u64,
}

#[derive(Debug, Default)]
struct OfCaller {
    held: usize,
    connections: HashMap<Option<SocketAddr>, OfConnection>,
}

#[derive(Debug, Default)]
struct OfConnection {
    held: usize,
    /// In the order in which they came.
    waiting: BTreeMap<u64, (usize, Sender)>,
}

impl OfConnection {
    fn is_idle(&self) -> bool {
        self.held == 0 && self.waiting.is_empty()
    }
}

impl OfCaller {
    /// Whether so many pieces more are the caller's share: no more than the
    /// largest message, or than is left for all others.
    fn may_have(&self, pieces: usize, free: usize, largest: usize) -> bool {
        let held = self.held + pieces;
        pieces <= free && (held <= largest || held + pieces <= free)
    }

    /// The same for one of its connections, and what the caller may have.
    fn gives(&self, own: &OfConnection, pieces: usize, free: usize, largest: usize) -> bool {
        let (own, held) = (own.held + pieces, self.held + pieces);
        let most = usize::midpoint(self.held, free);
        own <= largest || own + held <= most
    }

    /// The message that is next, if it can have its pieces: of the connection
    /// that has the least.
    fn next(&self, free: usize, largest: usize) -> Option<(Option<SocketAddr>, u64)> {
        if !self.may_have(1, free, largest) {
            return None;
        }
        let first = self.connections.iter().filter_map(|(connection, own)| {
            let (number, (pieces, _)) = own.waiting.first_key_value()?;
            let fits = self.may_have(*pieces, free, largest)
                && (connection.is_none() || self.gives(own, *pieces, free, largest));
            fits.then_some((own.held, *number, *connection))
        });
        let (_, number, connection) = first.min_by_key(|(held, number, _)| (*held, *number))?;
        Some((connection, number))
    }
}

impl Queue {
    pub fn new(pieces: usize, largest: usize) -> Queue {
        Queue {
            free: pieces,
            largest,
            callers: HashMap::new(),
            waiting: 0,
            numbers: 0,
        }
    }

    /// A message that wants its pieces: its number, and what can be granted now.
    pub fn enter(&mut self, asked: &Asked, sender: Sender) -> (u64, Granted) {
        let number = self.numbers;
        self.numbers += 1;
        self.waiting += 1;
        let caller = self.callers.entry(asked.caller.clone()).or_default();
        let own = caller.connections.entry(asked.connection).or_default();
        own.waiting.insert(number, (asked.pieces, sender));
        // Nobody else can have what it could not have before.
        (number, self.grant_to(&asked.caller))
    }

    /// A message that wants its pieces no longer, or has them.
    pub fn leave(&mut self, asked: &Asked, number: u64) -> Granted {
        let Some(caller) = self.callers.get_mut(&asked.caller) else {
            return Granted::new();
        };
        let Some(own) = caller.connections.get_mut(&asked.connection) else {
            return Granted::new();
        };
        if own.waiting.remove(&number).is_none() {
            return Granted::new();
        }
        self.waiting -= 1;
        self.forget(asked);
        self.grant_to(&asked.caller)
    }

    /// Pieces that a message had.
    pub fn give_back(&mut self, asked: &Asked) -> Granted {
        self.free += asked.pieces;
        if let Some(caller) = self.callers.get_mut(&asked.caller) {
            caller.held -= asked.pieces;
            if let Some(own) = caller.connections.get_mut(&asked.connection) {
                own.held -= asked.pieces;
            }
        }
        self.forget(asked);
        let mut granted = Granted::new();
        while self.waiting > 0 {
            let next = self.callers.iter().filter_map(|(name, caller)| {
                let (connection, number) = caller.next(self.free, self.largest)?;
                Some((caller.held, number, name, connection))
            });
            let next = next.min_by_key(|(held, number, ..)| (*held, *number));
            let Some((_, number, name, connection)) = next else {
                break;
            };
            let name = name.clone();
            granted.extend(self.grant(name, connection, number));
        }
        granted
    }

    fn grant_to(&mut self, name: &str) -> Granted {
        let mut granted = Granted::new();
        while let Some(caller) = self.callers.get(name)
            && let Some((connection, number)) = caller.next(self.free, self.largest)
        {
            granted.extend(self.grant(name.to_owned(), connection, number));
        }
        granted
    }

    fn grant(
        &mut self,
        name: String,
        connection: Option<SocketAddr>,
        number: u64,
    ) -> Option<(Asked, Sender)> {
        let caller = self.callers.get_mut(&name)?;
        let own = caller.connections.get_mut(&connection)?;
        let (pieces, sender) = own.waiting.remove(&number)?;
        self.waiting -= 1;
        self.free -= pieces;
        caller.held += pieces;
        own.held += pieces;
        let asked = Asked {
            caller: name,
            connection,
            pieces,
        };
        Some((asked, sender))
    }

    /// Drops what is kept of those who neither have nor want anything.
    fn forget(&mut self, asked: &Asked) {
        let Some(caller) = self.callers.get_mut(&asked.caller) else {
            return;
        };
        if caller
            .connections
            .get(&asked.connection)
            .is_some_and(OfConnection::is_idle)
        {
            caller.connections.remove(&asked.connection);
        }
        if caller.connections.is_empty() {
            self.callers.remove(&asked.caller);
        }
    }

    /// How many callers are known.
    #[cfg(test)]
    pub fn callers(&self) -> usize {
        self.callers.len()
    }
}
