//! GEOSEARCH, GEORADIUS and their kin: what lies within a shape.

use cairn_keyspace::types::{Item, ScoreBound, Zset};
use cairn_resp::Reply;

use super::cell::{Position, position_of};
use super::shape::Shape;
use super::{position, reply_distance, reply_position, unit};
use crate::args::{integer, parse_float};
use crate::context::{Context, bulk_item};
use crate::error::{CommandError, CommandResult};
use crate::families::zset::score_text;
use crate::hub::Interest;

/// Which of the commands it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Radius { may_store: bool },
    RadiusByMember { may_store: bool },
    Search,
    SearchStore,
}

impl Form {
    /// Index of the key that is searched.
    fn source(self) -> usize {
        if self == Self::SearchStore { 2 } else { 1 }
    }

    fn is_search(self) -> bool {
        matches!(self, Self::Search | Self::SearchStore)
    }

    fn may_store(self) -> bool {
        matches!(self, Self::Radius { may_store: true } | Self::RadiusByMember { may_store: true })
    }
}

/// In which order what is found is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    None,
    Ascending,
    Descending,
}

/// What a command asks for.
struct Query<'a> {
    /// There is none where a member was named and the key is absent.
    middle: Option<Position>,
    shape: Option<Shape>,
    /// Metres in the unit that was named.
    unit_m: f64,
    order: Order,
    /// The most to be told.
    count: Option<usize>,
    /// Any will do: the search may end when there are `count`.
    any: bool,
    with_distance: bool,
    with_hash: bool,
    with_position: bool,
    destination: Option<&'a [u8]>,
    store_distance: bool,
}

impl<'a> Query<'a> {
    fn parse(args: &[&'a [u8]], form: Form, zset: Option<&Zset>) -> Result<Self, CommandError> {
        let mut query = Self {
            middle: None,
            shape: None,
            unit_m: 1.0,
            order: Order::None,
            count: None,
            any: false,
            with_distance: false,
            with_hash: false,
            with_position: false,
            destination: None,
            store_distance: false,
        };
        let options = match form {
            Form::Radius { .. } => {
                query.middle = Some(position(args[2], args[3])?);
                query.circle(args[4], args[5])?;
                &args[6..]
            }
            Form::RadiusByMember { .. } => {
                if let Some(zset) = zset {
                    query.middle = Some(member_position(zset, args[2])?);
                    query.circle(args[3], args[4])?;
                }
                &args[5..]
            }
            Form::Search => &args[2..],
            Form::SearchStore => {
                query.destination = Some(args[1]);
                &args[3..]
            }
        };
        query.options(options, form, zset)?;
        query.check(args[0], form)?;
        Ok(query)
    }

    fn options(&mut self, args: &[&'a [u8]], form: Form, zset: Option<&Zset>) -> CommandResult {
        let (mut from_member, mut from_position) = (false, false);
        let mut rest = args;
        while let Some((word, behind)) = rest.split_first() {
            rest = behind;
            match &word.to_ascii_lowercase()[..] {
                b"withdist" => self.with_distance = true,
                b"withhash" => self.with_hash = true,
                b"withcoord" => self.with_position = true,
                b"any" => self.any = true,
                b"asc" => self.order = Order::Ascending,
                b"desc" => self.order = Order::Descending,
                b"count" => self.count = Some(count(take(&mut rest)?)?),
                b"store" if form.may_store() => {
                    (self.destination, self.store_distance) = (Some(take(&mut rest)?), false);
                }
                b"storedist" if form.may_store() => {
                    (self.destination, self.store_distance) = (Some(take(&mut rest)?), true);
                }
                b"storedist" if form == Form::SearchStore => self.store_distance = true,
                b"frommember" if form.is_search() && !from_position => {
                    let member = take(&mut rest)?;
                    // Without a key there is nothing to find, but the options are looked at.
                    self.middle = zset.map(|zset| member_position(zset, member)).transpose()?;
                    from_member = true;
                }
                b"fromlonlat" if form.is_search() && !from_member => {
                    let (longitude, latitude) = (take(&mut rest)?, take(&mut rest)?);
                    self.middle = Some(position(longitude, latitude)?);
                    from_position = true;
                }
                b"byradius" if form.is_search() && !matches!(self.shape, Some(Shape::Rectangle { .. })) => {
                    let (radius, unit) = (take(&mut rest)?, take(&mut rest)?);
                    self.circle(radius, unit)?;
                }
                b"bybox" if form.is_search() && !matches!(self.shape, Some(Shape::Circle { .. })) => {
                    let (width, height, unit) = (take(&mut rest)?, take(&mut rest)?, take(&mut rest)?);
                    self.rectangle(width, height, unit)?;
                }
                _ => return Err(CommandError::Syntax),
            }
        }
        // Told by the words alone: a member of a key that is absent has no position.
        if from_member && self.middle.is_none() {
            self.middle = Some(Position { longitude: 0.0, latitude: 0.0 });
        }
        Ok(())
    }

    fn check(&self, name: &[u8], form: Form) -> CommandResult {
        let only_one = |of: &str| {
            let name = String::from_utf8_lossy(name);
            Err(CommandError::other(format!("ERR exactly one of {of} can be specified for {name}")))
        };
        if self.destination.is_some() && (self.with_distance || self.with_hash || self.with_position) {
            let what = if form == Form::SearchStore { "GEOSEARCHSTORE" } else { "STORE option in GEORADIUS" };
            return Err(CommandError::other(format!(
                "ERR {what} is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
            )));
        }
        if form.is_search() && self.middle.is_none() {
            return only_one("FROMMEMBER or FROMLONLAT");
        }
        if form.is_search() && self.shape.is_none() {
            return only_one("BYRADIUS and BYBOX");
        }
        if self.any && self.count.is_none() {
            return Err(CommandError::other("ERR the ANY argument requires COUNT argument"));
        }
        Ok(())
    }

    fn circle(&mut self, radius: &[u8], unit_name: &[u8]) -> CommandResult {
        let radius = parse_float(radius).ok_or(CommandError::other("ERR need numeric radius"))?;
        if radius < 0.0 {
            return Err(CommandError::other("ERR radius cannot be negative"));
        }
        self.unit_m = unit(unit_name)?;
        self.shape = Some(Shape::Circle { radius_m: radius * self.unit_m });
        Ok(())
    }

    fn rectangle(&mut self, width: &[u8], height: &[u8], unit_name: &[u8]) -> CommandResult {
        let width = parse_float(width).ok_or(CommandError::other("ERR need numeric width"))?;
        let height = parse_float(height).ok_or(CommandError::other("ERR need numeric height"))?;
        if width < 0.0 || height < 0.0 {
            return Err(CommandError::other("ERR height or width cannot be negative"));
        }
        self.unit_m = unit(unit_name)?;
        self.shape = Some(Shape::Rectangle { width_m: width * self.unit_m, height_m: height * self.unit_m });
        Ok(())
    }

    /// What there is, in order, no more than asked for.
    fn find<'z>(&self, zset: &'z Zset) -> Vec<Found<'z>> {
        let (Some(middle), Some(shape)) = (self.middle, self.shape) else { return Vec::new() };
        let count = self.count.unwrap_or(usize::MAX);
        let enough = if self.any { count } else { usize::MAX };
        let in_cells = shape.cells(middle).into_iter().flat_map(|cell| {
            let (first, end) = cell.scores();
            zset.range(zset.rank_range_by_score(ScoreBound::Included(first), ScoreBound::Excluded(end)))
        });
        let within = in_cells.filter_map(|(member, score)| {
            let position = position_of(score);
            let distance_m = shape.reach(middle, position)?;
            Some(Found { member, score, position, distance_m })
        });
        let mut found: Vec<Found<'z>> = within.take(enough).collect();
        // The nearest are meant where nothing is said of the order.
        let nearest_first = self.order == Order::None && self.count.is_some() && !self.any;
        match self.order {
            Order::Descending => found.sort_by(|a, b| b.distance_m.total_cmp(&a.distance_m)),
            Order::None if !nearest_first => {}
            Order::None | Order::Ascending => found.sort_by(|a, b| a.distance_m.total_cmp(&b.distance_m)),
        }
        found.truncate(count);
        found
    }

    fn reply(&self, found: &[Found<'_>], reply: &mut Reply<'_>) {
        let parts = [self.with_distance, self.with_hash, self.with_position];
        let parts = parts.into_iter().filter(|with| *with).count();
        reply.array(found.len());
        for place in found {
            if parts > 0 {
                reply.array(parts + 1);
            }
            bulk_item(reply, place.member);
            if self.with_distance {
                reply_distance(reply, place.distance_m / self.unit_m);
            }
            if self.with_hash {
                reply.integer(place.score as i64);
            }
            if self.with_position {
                reply_position(reply, place.position);
            }
        }
    }
}

/// A member that lies within.
struct Found<'z> {
    member: Item<'z>,
    score: f64,
    position: Position,
    distance_m: f64,
}

fn take<'a>(rest: &mut &[&'a [u8]]) -> Result<&'a [u8], CommandError> {
    let (first, behind) = rest.split_first().ok_or(CommandError::Syntax)?;
    *rest = behind;
    Ok(first)
}

fn count(arg: &[u8]) -> Result<usize, CommandError> {
    let count = integer(arg)?;
    usize::try_from(count).ok().filter(|count| *count > 0).ok_or(CommandError::other("ERR COUNT must be > 0"))
}

fn member_position(zset: &Zset, member: &[u8]) -> Result<Position, CommandError> {
    let score = zset.score(member);
    score.map(position_of).ok_or(CommandError::other("ERR could not decode requested zset member"))
}

fn search(ctx: &mut Context<'_, '_>, args: &[&[u8]], form: Form) -> CommandResult {
    let limits = ctx.data.limits;
    let zset = ctx.data.read::<Zset>(args[form.source()])?;
    let query = Query::parse(args, form, zset)?;
    let found = zset.map(|zset| query.find(zset)).unwrap_or_default();
    let Some(destination) = query.destination else {
        query.reply(&found, &mut ctx.reply);
        return Ok(());
    };
    let mut result = Zset::with_capacity(found.len(), limits);
    for place in &found {
        let score = if query.store_distance { place.distance_m / query.unit_m } else { place.score };
        place.member.with_bytes(|member| result.add(member, score, limits));
    }
    let event = if form == Form::SearchStore { "geosearchstore" } else { "georadiusstore" };
    store(ctx, destination, result, event);
    Ok(())
}

/// Stores what was found and says so member by member: another machine might compute other distances.
fn store(ctx: &mut Context<'_, '_>, destination: &[u8], result: Zset, event: &'static str) {
    let (len, existed) = (result.len(), ctx.data.exists(destination));
    let mut addition: Vec<Vec<u8>> = vec![b"ZADD".to_vec(), destination.to_vec()];
    addition.extend(result.iter().flat_map(|(member, score)| [score_text(score), member.to_vec()]));
    ctx.data.store_as(Interest::ZSET, event, destination, result);
    if existed {
        ctx.data.effect(&[b"DEL", destination]);
    }
    if len > 0 {
        let addition: Vec<&[u8]> = addition.iter().map(Vec::as_slice).collect();
        ctx.data.effect(&addition);
    }
    ctx.reply.integer(len as i64);
}

pub(super) fn geosearch(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    search(ctx, args, Form::Search)
}

pub(super) fn geosearchstore(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    search(ctx, args, Form::SearchStore)
}

pub(super) fn georadius(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    search(ctx, args, Form::Radius { may_store: true })
}

pub(super) fn georadius_ro(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    search(ctx, args, Form::Radius { may_store: false })
}

pub(super) fn georadiusbymember(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    search(ctx, args, Form::RadiusByMember { may_store: true })
}

pub(super) fn georadiusbymember_ro(ctx: &mut Context<'_, '_>, args: &[&[u8]]) -> CommandResult {
    search(ctx, args, Form::RadiusByMember { may_store: false })
}
