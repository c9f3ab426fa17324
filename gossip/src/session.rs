//! One connection's life, from the first byte to the last: bytes in, events and bytes out.
//!
//! ```text
//!  initiator                                   responder
//!  Hello       hello ─────────────────────────►  Hello
//!              ◄───────────────────────── hello
//!  Handshake   e ─────────────────────────────►  Handshake
//!              ◄────────────────── e, ee, s, es
//!              s, se, psk, introduction ──────►  Deciding      (the mesh accepts or refuses)
//!  Handshake   ◄───── sealed introduction or refusal           Open
//!  Deciding → Open
//! ```
//!
//! So when the initiator's session is open the responder's is, and a responder's refusal comes as the first
//! sealed message with its reason. A responder that cannot open the third message (the secret differs) says
//! so with one empty record, the only thing it can say: nothing is sealed yet.
//!
//! While a session is `Deciding`, later bytes wait unopened, up to a bound.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::codec;
use crate::hello::{HELLO_LENGTH, Hello, HelloError, Introduction, Refusal};
use crate::identity::{Identity, Psk};
use crate::noise::{Handshake, NOISE_LIMIT, Sealer, TAG};
use crate::peer::PeerName;
use crate::wire::{ENVELOPE, Envelope, MESSAGE_LIMIT, Message};

/// A handshake message is at most this long: three keys, two tags, and an introduction.
const HANDSHAKE_LIMIT: usize = 16 << 10;
/// Most bytes that wait unopened while the mesh decides about a session.
const WAITING_LIMIT: usize = 256 << 10;
/// An introduction claims at most this many decoded bytes.
const INTRODUCTION_LIMIT: usize = 64 << 10;
const LAST: u8 = 1;
const MORE: u8 = 0;
/// What fits into one record beside its flag.
const CHUNK: usize = NOISE_LIMIT - TAG - 1;

/// Who called whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Initiator,
    Responder,
}

/// What all sessions of one router share.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) identity: Identity,
    pub(crate) psk: Psk,
    pub(crate) hello: Hello,
}

/// What a session has to report, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The far side proved who it is; answer with `accept` or `refuse`.
    Introduced(Introduction),
    /// The far side turned us away; the session is over.
    Refused(Refusal),
    /// A message of an open session.
    Message(Message),
    /// A message whose body this build cannot read; counted, and nothing else happens.
    Unreadable,
}

/// Why a session ended from within.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionError {
    #[error(transparent)]
    Hello(#[from] HelloError),
    /// One message for both causes: which it was is nobody's business on an unproven connection.
    #[error("secret differs or message corrupt")]
    Secret,
    #[error("the handshake breaks the protocol: {0}")]
    Protocol(&'static str),
    #[error("a sealed record does not open")]
    Corrupt,
    #[error("a message breaks its framing: {0}")]
    Framing(&'static str),
}

enum State {
    Hello,
    Handshake {
        handshake: Box<Handshake>,
        step: Step,
    },
    /// The initiator waits for the responder's word.
    Awaiting {
        sealer: Sealer,
        key: [u8; 32],
    },
    Deciding {
        sealer: Sealer,
    },
    Open {
        sealer: Sealer,
    },
    Over,
}

#[derive(Clone, Copy)]
enum Step {
    First,
    Second,
    Third,
}

/// One session; the mesh owns it together with its connection.
pub(crate) struct Session {
    role: Role,
    credentials: Arc<Credentials>,
    introduction: Introduction,
    seed: [u8; 32],
    state: State,
    id: u64,
    /// Who the far side has proved to be.
    far: Option<PeerName>,
    inbox: Vec<u8>,
    /// Chunks of the message that is not complete yet.
    partial: Vec<u8>,
    outbox: Vec<u8>,
    events: VecDeque<Event>,
}

impl Session {
    /// Begins a session; `seed` must never be used for another one.
    pub(crate) fn new(
        role: Role,
        credentials: Arc<Credentials>,
        introduction: Introduction,
        seed: [u8; 32],
    ) -> Self {
        let outbox = match role {
            Role::Initiator => credentials.hello.encode().to_vec(),
            Role::Responder => Vec::new(),
        };
        Self {
            role,
            credentials,
            introduction,
            seed,
            state: State::Hello,
            id: 0,
            far: None,
            inbox: Vec::new(),
            partial: Vec::new(),
            outbox,
            events: VecDeque::new(),
        }
    }

    /// The number of this session, the same at both ends; known once the far side is introduced.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Who the far side is, once it has proved that.
    pub(crate) fn far_side(&self) -> Option<PeerName> {
        self.far
    }

    /// The next event.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The bytes to be written, if there are any.
    pub(crate) fn take_output(&mut self) -> Option<Vec<u8>> {
        if self.outbox.is_empty() { None } else { Some(std::mem::take(&mut self.outbox)) }
    }

    /// Takes what arrived.
    ///
    /// # Errors
    /// [`SessionError`] if the session is over; what is in the outbox should still be written.
    pub(crate) fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), SessionError> {
        if !self.inbox.is_empty() {
            self.inbox.extend_from_slice(bytes);
            return self.advance();
        }
        // The rule: whole records. What is left of the last one is all that is copied and kept.
        let (used, result) = self.steps(bytes);
        self.inbox.extend_from_slice(&bytes[used..]);
        result
    }

    /// Takes the far side in; what it said meanwhile is opened now.
    ///
    /// # Errors
    /// [`SessionError`] if what it said ends the session.
    pub(crate) fn accept(&mut self) -> Result<(), SessionError> {
        self.state = match std::mem::replace(&mut self.state, State::Over) {
            State::Deciding { sealer } => State::Open { sealer },
            other @ (State::Hello | State::Handshake { .. } | State::Awaiting { .. }) => other,
            other @ (State::Open { .. } | State::Over) => other,
        };
        if self.role == Role::Responder {
            self.send(&Message::Introduction(self.introduction.clone()));
        }
        self.advance()
    }

    /// Turns the far side away, with a reason.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        self.send(&Message::Refused(refusal));
        self.state = State::Over;
    }

    /// Seals a message into the outbox; false if the session is not open or the message too long.
    pub(crate) fn send(&mut self, message: &Message) -> bool {
        let (State::Open { sealer } | State::Deciding { sealer }) = &mut self.state else { return false };
        let Some(bytes) = message.encode() else { return false };
        let mut chunks = bytes.chunks(CHUNK).peekable();
        let mut plain = Vec::with_capacity(bytes.len().min(CHUNK) + 1);
        while let Some(chunk) = chunks.next() {
            plain.clear();
            plain.push(if chunks.peek().is_some() { MORE } else { LAST });
            plain.extend_from_slice(chunk);
            sealer.seal(&plain, &mut self.outbox);
        }
        true
    }

    fn advance(&mut self) -> Result<(), SessionError> {
        let mut inbox = std::mem::take(&mut self.inbox);
        let (used, result) = self.steps(&inbox);
        // A session at rest holds no memory for what once arrived.
        if used < inbox.len() {
            inbox.drain(..used);
            self.inbox = inbox;
        }
        result
    }

    /// Takes unit after unit from the front of `bytes`, and says how much that was.
    fn steps(&mut self, bytes: &[u8]) -> (usize, Result<(), SessionError>) {
        let mut used = 0;
        loop {
            match self.step(&bytes[used..]) {
                Ok(Some(length)) => used += length,
                Ok(None) => return (used, Ok(())),
                Err(error) => {
                    self.state = State::Over;
                    return (used, Err(error));
                }
            }
        }
    }

    /// Takes one unit from the front of `bytes` and says how long it was; `None`: not all of it is there.
    fn step(&mut self, bytes: &[u8]) -> Result<Option<usize>, SessionError> {
        match self.state {
            State::Over => Ok(None),
            State::Hello => self.take_hello(bytes),
            State::Deciding { .. } if bytes.len() > WAITING_LIMIT => {
                Err(SessionError::Framing("too many bytes before it was accepted"))
            }
            State::Deciding { .. } => Ok(None),
            State::Handshake { .. } | State::Awaiting { .. } | State::Open { .. } => {
                let Some((head, rest)) = bytes.split_first_chunk::<2>() else { return Ok(None) };
                let length = usize::from(u16::from_be_bytes(*head));
                self.check_length(length)?;
                let Some(record) = rest.get(..length) else { return Ok(None) };
                self.take_record(record)?;
                Ok(Some(2 + length))
            }
        }
    }

    fn check_length(&self, length: usize) -> Result<(), SessionError> {
        match self.state {
            State::Awaiting { .. } if length == 0 => Err(SessionError::Secret),
            State::Handshake { .. } | State::Awaiting { .. } if length > HANDSHAKE_LIMIT => {
                Err(SessionError::Protocol("a message is too long"))
            }
            State::Open { .. } if length <= TAG => Err(SessionError::Framing("an empty record")),
            State::Handshake { .. } | State::Awaiting { .. } | State::Open { .. } => Ok(()),
            State::Hello | State::Deciding { .. } | State::Over => Ok(()), // no records are taken there
        }
    }

    fn take_hello(&mut self, bytes: &[u8]) -> Result<Option<usize>, SessionError> {
        if !Hello::may_begin(bytes) {
            return Err(HelloError::Magic.into());
        }
        let Some(head) = bytes.first_chunk::<HELLO_LENGTH>() else { return Ok(None) };
        let (ours, theirs) = (self.credentials.hello, Hello::decode(head)?);
        if self.role == Role::Responder {
            self.outbox.extend_from_slice(&ours.encode());
        }
        ours.common(theirs)?;
        let initiator = self.role == Role::Initiator;
        let prologue = if initiator { [ours.encode(), *head] } else { [*head, ours.encode()] }.concat();
        let Credentials { identity, psk, .. } = &*self.credentials;
        let mut handshake = Box::new(Handshake::new(identity, psk, &prologue, initiator, self.seed));
        let step = if initiator {
            let first = handshake.write(&[]);
            self.put(&first);
            Step::Second
        } else {
            Step::First
        };
        self.state = State::Handshake { handshake, step };
        Ok(Some(HELLO_LENGTH))
    }

    fn put(&mut self, message: &[u8]) {
        let length = u16::try_from(message.len()).expect("handshake messages are short");
        self.outbox.extend_from_slice(&length.to_be_bytes());
        self.outbox.extend_from_slice(message);
    }

    fn take_record(&mut self, record: &[u8]) -> Result<(), SessionError> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Handshake { handshake, step } => self.take_handshake(handshake, step, record),
            State::Awaiting { sealer, key } => self.take_answer(sealer, key, record),
            State::Open { mut sealer } => {
                let plain = sealer.open(record).map_err(|_| SessionError::Corrupt)?;
                self.state = State::Open { sealer };
                self.take_chunk(&plain)
            }
            State::Hello | State::Deciding { .. } | State::Over => Ok(()),
        }
    }

    fn take_handshake(
        &mut self,
        mut handshake: Box<Handshake>,
        step: Step,
        record: &[u8],
    ) -> Result<(), SessionError> {
        let Ok(payload) = handshake.read(record) else {
            if matches!(step, Step::Third) {
                self.outbox.extend_from_slice(&[0, 0]); // see the module: "the secret differs"
            }
            return Err(SessionError::Secret);
        };
        match step {
            Step::First => {
                let second = handshake.write(&[]);
                self.put(&second);
                self.state = State::Handshake { handshake, step: Step::Third };
            }
            Step::Second => {
                let key = handshake.remote_key().ok_or(SessionError::Protocol("no key"))?;
                let third = handshake.write(&codec::encode(&self.introduction));
                self.put(&third);
                let (sealer, id) = handshake.finish();
                self.id = id;
                self.state = State::Awaiting { sealer, key };
            }
            Step::Third => {
                let key = handshake.remote_key().ok_or(SessionError::Protocol("no key"))?;
                let introduction = codec::decode::<Introduction, INTRODUCTION_LIMIT>(&payload)
                    .map_err(|_| SessionError::Protocol("the introduction is malformed"))?;
                let (sealer, id) = handshake.finish();
                self.id = id;
                self.introduced(sealer, key, introduction)?;
            }
        }
        Ok(())
    }

    fn take_answer(&mut self, mut sealer: Sealer, key: [u8; 32], record: &[u8]) -> Result<(), SessionError> {
        let plain = sealer.open(record).map_err(|_| SessionError::Secret)?;
        let Some((&LAST, message)) = plain.split_first() else {
            return Err(SessionError::Protocol("the answer is cut"));
        };
        self.far = Some(PeerName::of_key(&key));
        match read_message(message)? {
            Event::Message(Message::Introduction(introduction)) => self.introduced(sealer, key, introduction),
            Event::Message(Message::Refused(refusal)) => {
                self.events.push_back(Event::Refused(refusal));
                Ok(())
            }
            Event::Message(_) | Event::Unreadable | Event::Introduced(_) | Event::Refused(_) => {
                Err(SessionError::Protocol("no introduction"))
            }
        }
    }

    fn introduced(
        &mut self,
        sealer: Sealer,
        key: [u8; 32],
        introduction: Introduction,
    ) -> Result<(), SessionError> {
        if introduction.name != PeerName::of_key(&key) {
            return Err(SessionError::Protocol("the name is not the hash of the key"));
        }
        if !introduction.plausible() {
            return Err(SessionError::Protocol("the introduction is out of bounds"));
        }
        self.state = State::Deciding { sealer };
        self.events.push_back(Event::Introduced(introduction));
        Ok(())
    }

    fn take_chunk(&mut self, plain: &[u8]) -> Result<(), SessionError> {
        let Some((flag, chunk)) = plain.split_first() else {
            return Err(SessionError::Framing("an empty record"));
        };
        if self.partial.len() + chunk.len() > MESSAGE_LIMIT {
            return Err(SessionError::Framing("a message is too long"));
        }
        if *flag == LAST && self.partial.is_empty() {
            return self.take_message(chunk);
        }
        self.partial.extend_from_slice(chunk);
        if *flag == LAST {
            let message = std::mem::take(&mut self.partial);
            return self.take_message(&message);
        }
        // The envelope says early what is coming, so a lie is found out before it fills the memory.
        match Envelope::read(&self.partial) {
            Some(envelope) if envelope.length + ENVELOPE > MESSAGE_LIMIT => {
                Err(SessionError::Framing("a message announces too many bytes"))
            }
            Some(envelope) if self.partial.len() >= envelope.length + ENVELOPE => {
                Err(SessionError::Framing("a message is longer than it announced"))
            }
            _ => Ok(()),
        }
    }

    fn take_message(&mut self, message: &[u8]) -> Result<(), SessionError> {
        let event = read_message(message)?;
        if let Event::Message(Message::Refused(refusal)) = event {
            self.state = State::Over;
            self.events.push_back(Event::Refused(refusal));
        } else {
            self.events.push_back(event);
        }
        Ok(())
    }
}

/// Reads an envelope and its body: a bad envelope breaks the framing, a bad body only itself.
fn read_message(bytes: &[u8]) -> Result<Event, SessionError> {
    let envelope = Envelope::read(bytes).ok_or(SessionError::Framing("no envelope"))?;
    let body = &bytes[ENVELOPE..];
    if body.len() != envelope.length {
        return Err(SessionError::Framing("the length in the envelope is not that of the body"));
    }
    if !envelope.readable() {
        return Ok(Event::Unreadable);
    }
    match Message::decode(envelope.kind, body) {
        Ok(Some(message)) => Ok(Event::Message(message)),
        Ok(None) | Err(_) => Ok(Event::Unreadable),
    }
}

#[cfg(test)]
mod tests;
