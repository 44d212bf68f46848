//! One client: its bytes in, its commands run, their replies out.
//!
//! All complete requests in the buffer run one after the other, and their replies leave in one write, once everything
//! they tell of is durable.

use crate::ahead::{Ahead, Window};
use crate::blocked;
use crate::clients::{Client, Shown};
use crate::metering::Meter;
use crate::server::Server;
use crate::turns::Turn;
use cairn_engine::{Inbox, Job, Lsn, Outcome, Poisoned, Replies, Route, Session};
use cairn_resp::{Limits, Parser, Reply};
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// What a read asks for at the least, and what an idle connection's buffers keep.
const BUFFER: usize = 16 << 10;
/// Buffers that grew beyond this are given back when they are empty.
const BUFFER_KEPT: usize = 64 << 10;
/// Replies that are written before the next command runs.
const REPLIES_HELD: usize = 1 << 20;
/// How long a request waits at first, and at most, before it asks again for a key that a script holds.
const CONTENDED_PAUSE: Duration = Duration::from_millis(1);
const CONTENDED_PAUSE_MAX: Duration = Duration::from_millis(32);
/// How long the disk is waited for on behalf of a client that sends no more: it may still read the replies.
const GONE_KEPT: Duration = Duration::from_secs(5);
/// How long the other end gets to read the last reply before the connection is gone.
const LINGER: Duration = Duration::from_secs(1);

/// A client's end of a connection.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

/// What comes after a batch of requests.
enum Next {
    /// More bytes; at least so many are missing.
    Read(usize),
    /// The end, the replies being written.
    Close,
}

/// Serves a client until either side ends the connection.
pub(crate) async fn serve<S: Stream>(server: Arc<Server>, stream: S, session: Session, client: Arc<Client>) {
    // A task's waker stays the same for as long as it lives.
    let waker = poll_fn(|context| Poll::Ready(context.waker().clone())).await;
    attach(&server, &client, waker.clone());
    let mut connection = Connection::new(&server, stream, session, &client);
    connection.turn = server.turns.as_ref().map(|turns| Turn::new(turns, waker));
    if let Err(error) = connection.run().await {
        tracing::debug!(id = client.id, %error, "connection lost");
    }
}

/// Lets messages of others wake this task, and end it where too many wait.
fn attach(server: &Arc<Server>, client: &Arc<Client>, waker: Waker) {
    let (weak, clients) = (Arc::downgrade(client), Arc::downgrade(server));
    let grew = move || {
        if let Some((client, server)) = weak.upgrade().zip(clients.upgrade()) {
            server.clients.note_growth(&client);
        }
    };
    let weak = Arc::downgrade(client);
    let overflowed = move |bytes| {
        if let Some(client) = weak.upgrade() {
            tracing::warn!(
                id = client.id,
                address = client.address,
                bytes,
                "closing a client that reads too slowly: more waits for it than client-output-buffer-limit allows"
            );
            client.abort();
        }
    };
    client.inbox.attach(waker, grew, overflowed);
}

struct Connection<'s, S: Stream> {
    server: &'s Arc<Server>,
    client: &'s Client,
    session: Session,
    parser: Parser,
    window: Window,
    input: Vec<u8>,
    /// Bytes of `input` whose requests have run.
    used: usize,
    outbox: Outbox<'s, S>,
    /// What others are shown of the session.
    shown: Shown,
    /// Where requests are served in the order in which they came.
    turn: Option<Turn>,
}

impl<S: Stream> Drop for Connection<'_, S> {
    /// However its task ends, the client is forgotten.
    fn drop(&mut self) {
        self.forget();
    }
}

thread_local! {
    /// Where messages lie while they are written.
    static DELIVERY: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Replies on their way out.
pub(crate) struct Outbox<'s, S> {
    server: &'s Server,
    client: &'s Client,
    pub(crate) stream: S,
    pub(crate) bytes: Vec<u8>,
    /// The replies wait until the journal is durable up to here.
    pub(crate) hold: Lsn,
    /// What was read while a request waited.
    pub(crate) early: Vec<u8>,
    /// Since when it is known, while nothing moves, that the client has gone or is to go.
    gone_at: Option<Instant>,
    /// Where messages of others come from.
    pub(crate) inbox: Arc<Inbox>,
}

impl<'s, S: Stream> Connection<'s, S> {
    fn new(server: &'s Arc<Server>, stream: S, session: Session, client: &'s Client) -> Self {
        Connection {
            server,
            client,
            shown: Shown::of(&session),
            session,
            turn: None,
            parser: Parser::new(Limits { max_bulk: server.hot.max_bulk.load(Relaxed), ..Limits::default() }),
            window: Window::default(),
            input: Vec::with_capacity(BUFFER),
            used: 0,
            outbox: Outbox {
                server,
                client,
                stream,
                bytes: Vec::new(),
                hold: Lsn::ZERO,
                early: Vec::new(),
                gone_at: None,
                inbox: Arc::clone(&client.inbox),
            },
        }
    }

    async fn run(&mut self) -> io::Result<()> {
        let mut missing = 1;
        loop {
            match self.read(missing).await? {
                None => {
                    self.outbox.deliver().await?;
                    continue;
                }
                Some(0) => return Ok(()),
                Some(_) => {}
            }
            self.server.clients.enter(self.client).await;
            let next = self.batch().await;
            self.note_session();
            self.server.clients.leave(self.client);
            match next? {
                Next::Read(more) if !self.client.is_doomed.load(Relaxed) => missing = more,
                _ => return self.close().await,
            }
        }
    }

    /// Reads what has arrived, or waits for it; 0 is the end, and nothing says that there are messages instead.
    async fn read(&mut self, missing: usize) -> io::Result<Option<usize>> {
        self.input.drain(..self.used);
        self.used = 0;
        if self.input.is_empty() && self.input.capacity() > BUFFER_KEPT {
            self.input.shrink_to(BUFFER);
        }
        // An announced length is not believed: the buffer at most doubles ahead of what has arrived.
        let room = missing.min(self.input.len()).max(BUFFER / 4);
        if missing > BUFFER {
            // All that it will be is known, and what it takes counts towards maxmemory-clients.
            self.input.reserve_exact(room);
        } else {
            self.input.reserve(room);
        }
        if !self.outbox.early.is_empty() {
            return Ok(Some(self.take_early()));
        }
        let (stream, inbox, turn) = (&mut self.outbox.stream, &self.outbox.inbox, self.turn.as_ref());
        let read = poll_fn(|context| {
            let waker = turn.map_or_else(|| context.waker(), |turn| &turn.waker);
            match pin!(stream.read_buf(&mut self.input)).poll(&mut Context::from_waker(waker)) {
                Poll::Pending if inbox.is_filled() => Poll::Ready(Ok(None)),
                read => read.map_ok(Some),
            }
        });
        let Some(count) = read.await? else { return Ok(None) };
        if let Some(turn) = turn {
            turn.come().await;
        }
        let stats = &self.server.stats;
        stats.reads_total.fetch_add(1, Relaxed);
        stats.input_bytes_total.fetch_add(count as u64, Relaxed);
        self.client.active_at.store(self.server.uptime_seconds(), Relaxed);
        let bytes_max = self.server.hot.query_buffer.load(Relaxed);
        if self.input.len() > bytes_max {
            tracing::warn!(
                id = self.client.id,
                address = self.client.address,
                bytes = self.input.len(),
                bytes_max,
                "closing a client whose request is longer than client-query-buffer-limit allows: raise that, or send less at a \
                 time"
            );
            return Ok(Some(0));
        }
        // What is understood of a request that is not whole counts as its arguments.
        self.client.query_bytes.store(self.input.len().saturating_sub(self.parser.understood()), Relaxed);
        self.client.query_room.store(self.input.capacity() - self.input.len(), Relaxed);
        self.server.clients.note_memory(self.client);
        if self.input.len() > BUFFER_KEPT {
            self.server.engine.relieve_memory();
        }
        // Evicted: what it has sent is not run any more.
        Ok(Some(if self.client.is_doomed.load(Relaxed) { 0 } else { count }))
    }

    /// Takes what arrived while replies were written as if it had been read now.
    #[cold]
    fn take_early(&mut self) -> usize {
        let early = std::mem::take(&mut self.outbox.early);
        self.input.extend_from_slice(&early);
        early.len()
    }

    /// Runs all requests that are whole and writes their replies.
    async fn batch(&mut self) -> io::Result<Next> {
        let mut commands = 0;
        let replies_max = self.server.hot.replies_max.load(Relaxed);
        let replies_held = REPLIES_HELD.min(replies_max);
        let next = 'batch: loop {
            // Either may have been changed by the requests before.
            self.parser.set_max_bulk(self.server.hot.max_bulk.load(Relaxed));
            self.parser.set_authenticated(!self.is_stranger());
            let mut ahead = self.window.fill(&self.server.engine, &mut self.parser, &self.input, self.used);
            let requests = self.window.requests();
            if requests.len() > 1 {
                self.server.engine.prefetch(&self.session, requests.iter().map(|request| &request.route));
            }
            let mut meter = Meter::new(self.server, self.client, requests, &self.input);
            for (at, request) in requests.iter().enumerate() {
                if !request.args.is_empty() {
                    commands += 1;
                    let args = request.args.slices(self.input.get(request.start..).unwrap_or_default());
                    let (session, outbox) = (&mut self.session, &mut self.outbox);
                    let one = (at, &request.route, &args[..]);
                    execute(self.server, self.client, session, one, outbox, &mut meter).await?;
                    if request.end == self.input.len() {
                        self.session.last_command = request.route.name().unwrap_or(self.session.last_command);
                    }
                }
                self.used = request.end;
                if self.session.closing || self.client.is_doomed.load(Relaxed) {
                    meter.stop();
                    // Who reads the last reply knows that nothing reaches this client any more.
                    self.outbox.inbox.close();
                    if self.session.reply_given_up {
                        return Err(self.outbox.give_up());
                    }
                    break 'batch Next::Close;
                }
                if self.outbox.bytes.len() >= replies_held {
                    meter.stop();
                    if self.is_stranger() {
                        self.outbox.flush_at_once().await?;
                    } else {
                        self.outbox.make_room(replies_max).await?;
                    }
                }
            }
            meter.stop();
            if !self.outbox.early.is_empty() {
                self.input.append(&mut self.outbox.early);
                ahead = Ahead::Unknown;
            }
            match ahead {
                Ahead::Unknown => {}
                Ahead::Incomplete(missing) => break Next::Read(missing),
                Ahead::Failed(error) => {
                    self.server.stats.protocol_errors_total.fetch_add(1, Relaxed);
                    tracing::debug!(id = self.client.id, "closing a connection after a protocol error");
                    Reply::new(&mut self.outbox.bytes, self.session.protocol).error(&format!("ERR {error}"));
                    break Next::Close;
                }
            }
        };
        self.server.stats.commands_total.fetch_add(commands, Relaxed);
        if self.is_stranger() {
            self.outbox.flush_at_once().await?;
        } else {
            self.outbox.flush().await?;
        }
        Ok(next)
    }

    /// Whether the client has yet to say who it is.
    fn is_stranger(&self) -> bool {
        self.server.engine.acl().is_stranger(&self.session)
    }

    /// Shows others what CLIENT LIST tells of the session, where that has changed.
    fn note_session(&mut self) {
        let shown = Shown::of(&self.session);
        if shown != self.shown {
            self.shown = shown;
            self.client.show(shown);
        }
        let (query, understood) = (self.input.len() - self.used, self.parser.understood());
        self.client.query_bytes.store(query.saturating_sub(understood), Relaxed);
        self.client.argument_bytes.store(understood, Relaxed);
        self.server.clients.note_memory(self.client);
    }

    /// Ends the client: it is listed, listens and tracks no more.
    fn forget(&mut self) {
        let session = std::mem::replace(&mut self.session, Session::new(0, false));
        self.server.engine.end_session(session);
        self.server.clients.remove(self.client.id);
    }

    /// Ends the connection so that the last reply arrives: closing while bytes are unread would destroy it. For others the
    /// client is gone meanwhile.
    async fn close(&mut self) -> io::Result<()> {
        self.forget();
        let stream = &mut self.outbox.stream;
        stream.shutdown().await?;
        let mut rest = vec![0; BUFFER];
        let drain = async { while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {} };
        // The time being over is as good an end as any.
        let _ = tokio::time::timeout(LINGER, drain).await;
        Ok(())
    }
}

/// Runs one request, the `at`th of its window, until its reply, or what stands for it, is in the outbox.
async fn execute<S: Stream>(
    server: &Arc<Server>,
    client: &Client,
    session: &mut Session,
    (at, route, args): (usize, &Route, &[&[u8]]),
    outbox: &mut Outbox<'_, S>,
    meter: &mut Meter<'_>,
) -> io::Result<()> {
    if server.paused.is_on() {
        meter.stop();
        outbox.flush().await?;
        wait_for_pause(server, client, session, (route, args), outbox).await?;
    }
    let mut pause = CONTENDED_PAUSE;
    loop {
        let start = outbox.bytes.len();
        let mut reply = Reply::new(&mut outbox.bytes, session.protocol);
        match server.engine.execute_routed(session, &**server, args, route, &mut reply) {
            // The session knows that it is closing.
            Outcome::Done { hold } | Outcome::Close { hold } => {
                outbox.hold = outbox.hold.max(hold);
                meter.ran(at, outbox.bytes.get(start) == Some(&b'-'));
                if !session.is_plain() {
                    outbox.settle(session, route, start);
                }
                return Ok(());
            }
            Outcome::Wait(admission) => {
                meter.stop();
                outbox.flush().await?;
                outbox.held_up(admission).await?;
            }
            Outcome::Blocked(blocked) => {
                let so_far = meter.waits();
                let failed = blocked::wait(server, client, blocked, outbox).await?;
                meter.took(at, so_far, failed);
                let start = outbox.bytes.len();
                outbox.settle(session, route, start);
                return Ok(());
            }
            Outcome::Contended => {
                meter.stop();
                outbox.flush().await?;
                // Longer each time: many may wait for one script.
                outbox.held_up(tokio::time::sleep(pause)).await?;
                pause = (pause * 2).min(CONTENDED_PAUSE_MAX);
            }
            Outcome::Blocking(job) => {
                meter.stop();
                outbox.flush().await?;
                let began = Instant::now();
                let reply = match job {
                    Job::Shutdown { .. } => {
                        // Who asks for the end must not be waited for by it.
                        server.clients.leave(client);
                        let reply = server.shut_down(job, session.protocol).await;
                        server.clients.enter(client).await;
                        reply
                    }
                    _ => server.run_job(job, session.protocol).await,
                };
                meter.took(at, began.elapsed(), reply.first() == Some(&b'-'));
                let start = outbox.bytes.len();
                outbox.bytes.extend_from_slice(&reply);
                outbox.settle(session, route, start);
                return Ok(());
            }
        }
    }
}

/// Lets a command wait for the end of CLIENT PAUSE.
async fn wait_for_pause<S: Stream>(
    server: &Server,
    client: &Client,
    session: &Session,
    (route, args): (&Route, &[&[u8]]),
    outbox: &mut Outbox<'_, S>,
) -> io::Result<()> {
    let may_write = server.engine.may_write(session, route, args);
    if server.paused.holds(may_write) {
        // Whoever ends the server does not wait for the pause, and whoever ends this client does not either.
        client.is_blocked.store(true, Relaxed);
        server.clients.leave(client);
        let waited = outbox.deliver_until(server.paused.wait(may_write)).await;
        client.is_blocked.store(false, Relaxed);
        server.clients.enter(client).await;
        waited?;
    }
    Ok(())
}

impl<S: Stream> Outbox<'_, S> {
    /// Ends a command whose reply, from `start` on, the client may not want, or behind which there are messages.
    #[cold]
    fn settle(&mut self, session: &mut Session, route: &Route, start: usize) {
        match session.replies {
            Replies::On => {}
            Replies::SkipNext => session.replies = Replies::Skip,
            Replies::Off | Replies::Skip => {
                if !route.replies_with_messages() {
                    self.bytes.truncate(start);
                }
                if session.replies == Replies::Skip {
                    session.replies = Replies::On;
                }
            }
        }
        self.inbox.take(&mut self.bytes);
    }

    /// Writes the messages of others.
    ///
    /// They lie in a buffer of the thread on their way: those of each connection would grow with every message to many.
    pub(crate) async fn deliver(&mut self) -> io::Result<()> {
        if !self.bytes.is_empty() {
            self.inbox.take(&mut self.bytes);
            return self.flush().await;
        }
        let own = std::mem::replace(&mut self.bytes, DELIVERY.take());
        self.inbox.take(&mut self.bytes);
        self.flush().await?;
        DELIVERY.set(std::mem::replace(&mut self.bytes, own));
        Ok(())
    }

    /// Waits for something other than requests; meanwhile messages go out, and what comes is kept for later.
    ///
    /// # Errors
    /// When the connection has ended, or has to.
    pub(crate) async fn deliver_until<T>(&mut self, event: impl Future<Output = T>) -> io::Result<T> {
        let mut event = pin!(event);
        loop {
            let happened = poll_fn(|context| match event.as_mut().poll(context) {
                Poll::Pending if self.inbox.is_filled() => Poll::Ready(Ok(None)),
                Poll::Pending => match std::task::ready!(self.keep_what_comes(context)) {
                    Ok(()) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                    Err(error) => Poll::Ready(Err(error)),
                },
                Poll::Ready(happened) => Poll::Ready(Ok(Some(happened))),
            });
            match happened.await? {
                Some(happened) => return Ok(happened),
                None => self.deliver().await?,
            }
        }
    }

    /// Writes what there is before more is made, unless it is more than a client may let wait.
    #[cold]
    async fn make_room(&mut self, replies_max: usize) -> io::Result<()> {
        if self.bytes.len() < replies_max { self.flush().await } else { Err(self.give_up()) }
    }

    /// Ends the connection of a client that is to read more than may wait for it, and sends none of that.
    fn give_up(&mut self) -> io::Error {
        tracing::warn!(
            id = self.inbox.id(),
            bytes = self.bytes.len(),
            bytes_max = self.server.hot.replies_max.load(Relaxed),
            "closing a client whose replies are longer than client-output-buffer-limit allows: raise that, or ask for less at \
             a time"
        );
        self.bytes.clear();
        io::Error::other("its replies exceed client-output-buffer-limit")
    }

    /// Writes the replies of somebody who has not authenticated: whoever lets so many lie that the socket takes no more is
    /// not waited for, since connections cost a stranger nothing.
    async fn flush_at_once(&mut self) -> io::Result<()> {
        // What they tell of may be the writes of somebody who had authenticated: waiting for these is not its doing.
        let told = self.await_durable().await?;
        let mut send = pin!(tokio::task::unconstrained(self.send()));
        poll_fn(|context| match send.as_mut().poll(context) {
            Poll::Pending => {
                Poll::Ready(Err(io::Error::other("not authenticated, and its replies are not read")))
            }
            sent => sent,
        })
        .await?;
        told.end()
    }

    /// Writes what there is. Where the client does not read yet, what it sends is kept for later: one that reads only when
    /// it has sent everything would otherwise wait for ever, and so would its connection.
    async fn write(&mut self) -> io::Result<()> {
        let (mut written, mut may_come) = (0, true);
        poll_fn(|context| {
            while let Some(rest @ [_, ..]) = self.bytes.get(written..) {
                match Pin::new(&mut self.stream).poll_write(context, rest) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(count)) => written += count,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending if may_come => match self.keep_what_comes(context) {
                        Poll::Ready(Ok(())) => may_come = false,
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => return Poll::Pending,
                    },
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Waits for the disk, or for a script that holds a key. However long that lasts, whoever ends the client ends it at
    /// once, and one that has gone is not kept for long: others need its place.
    async fn held_up<T>(&mut self, event: impl Future<Output = T>) -> io::Result<T> {
        let client = self.client;
        // Set before it is looked at whether the client is to end, and the other way round by who ends it: one of both
        // sees the other. A client that has ended itself still hears of it where the disk is well.
        client.is_held_up.store(true, SeqCst);
        if client.is_doomed.load(SeqCst) {
            self.gone_at.get_or_insert_with(Instant::now);
        }
        let mut event = pin!(event);
        let happened = loop {
            let given_up_at = self.gone_at.map(|gone_at| gone_at + GONE_KEPT);
            tokio::select! {
                biased;
                happened = &mut event => break Ok(happened),
                () = reached(given_up_at) => break Err(io::ErrorKind::ConnectionAborted.into()),
                () = poll_fn(|context| self.poll_gone(context)), if given_up_at.is_none() => {
                    self.gone_at = Some(Instant::now());
                }
            }
        };
        client.is_held_up.store(false, SeqCst);
        happened
    }

    /// Ready when the client sends no more. Little is read ahead: what holds it up is to hold up what it sends too.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.early.len() < BUFFER {
            match std::task::ready!(self.read_early(context)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
        Poll::Pending
    }

    /// Reads for later what has arrived; ready when nothing more will. As much is kept as a request may be long.
    #[cold]
    fn keep_what_comes(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.early.len() > self.server.hot.query_buffer.load(Relaxed) {
                return Poll::Ready(Err(io::Error::other("it sends without reading, more than may wait")));
            }
            if std::task::ready!(self.read_early(context))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Reads for later some of what has arrived; 0 is the end.
    fn read_early(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // On the stack first: most connections wait now and then, and few of them send anything meanwhile.
        let mut space = [const { MaybeUninit::uninit() }; BUFFER];
        let mut arrived = ReadBuf::uninit(&mut space);
        std::task::ready!(Pin::new(&mut self.stream).poll_read(context, &mut arrived))?;
        let count = arrived.filled().len();
        self.early.extend_from_slice(arrived.filled());
        self.server.stats.input_bytes_total.fetch_add(count as u64, Relaxed);
        self.client.query_bytes.fetch_add(count, Relaxed);
        self.server.clients.note_memory(self.client);
        Poll::Ready(Ok(count))
    }

    /// Writes the replies once what they tell of is durable.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        let told = self.await_durable().await?;
        self.send().await?;
        told.end()
    }

    /// Waits until what the replies tell of is durable. Where it never will be, they become an error.
    async fn await_durable(&mut self) -> io::Result<Told> {
        if self.bytes.is_empty() {
            return Ok(Told::Durable);
        }
        // There is something to tell: it is not stuck.
        self.gone_at = None;
        self.hold = self.hold.max(Lsn(self.inbox.taken_after()));
        let (server, hold) = (self.server, self.hold);
        if hold <= server.engine.durable() || self.held_up(wait_durable(server, hold)).await?.is_ok() {
            return Ok(Told::Durable);
        }
        // Some of these replies tell of writes that may be lost, and which ones is not known here.
        self.bytes.clear();
        self.bytes.extend_from_slice(OUTCOME_UNKNOWN);
        Ok(Told::Unknown)
    }

    /// Writes the replies.
    async fn send(&mut self) -> io::Result<()> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        self.inbox.set_unwritten(self.bytes.len());
        if self.bytes.len() > BUFFER_KEPT {
            // It may be long before the client has read that.
            self.server.clients.note_memory(self.client);
        }
        self.write().await?;
        self.inbox.set_unwritten(0);
        let stats = &self.server.stats;
        stats.writes_total.fetch_add(1, Relaxed);
        stats.output_bytes_total.fetch_add(self.bytes.len() as u64, Relaxed);
        self.bytes.clear();
        if self.bytes.capacity() > BUFFER_KEPT {
            self.bytes.shrink_to(BUFFER);
        }
        Ok(())
    }
}

/// What replies tell of: it is durable, or may be lost.
enum Told {
    Durable,
    Unknown,
}

impl Told {
    /// The connection ends behind replies that may tell of what is lost.
    fn end(self) -> io::Result<()> {
        match self {
            Told::Durable => Ok(()),
            Told::Unknown => Err(io::Error::other("the journal failed under an unanswered write")),
        }
    }
}

/// Resolves at this moment; never without one.
pub(crate) async fn reached(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// Waits until the journal is durable up to `lsn`. Of those who wait on a quick disk, one writes and syncs for all.
pub(crate) async fn wait_durable(server: &Server, lsn: Lsn) -> Result<(), Poisoned> {
    let engine = &server.engine;
    if engine.is_worth_leading() {
        // Those who are ready run first, so that one sync serves them too.
        tokio::task::yield_now().await;
        if engine.durable() < lsn {
            // Another thread takes over this one's connections: a disk that hangs must not silence them.
            engine.lead(|write| tokio::task::block_in_place(write));
        }
        if engine.durable() >= lsn {
            return Ok(());
        }
    }
    match engine.wait_durable(lsn) {
        Some(durable) => durable.await,
        None => Ok(()),
    }
}

const OUTCOME_UNKNOWN: &[u8] =
    b"-ERR the journal could not be written: whether this write will survive a restart is unknown; restart \
      the server once the disk is well, and read it back\r\n";
