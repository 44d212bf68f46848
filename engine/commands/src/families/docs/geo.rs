//! What COMMAND DOCS says of the group `geo`.

use super::{Doc, doc};

#[rustfmt::skip]
pub(super) const DOCS: &[Doc] = &[
    doc("geoadd", "3.2.0", "O(log(N))", "Adds members at longitudes and latitudes."),
    doc("geodist", "3.2.0", "O(log(N))", "Returns the distance between two members."),
    doc("geohash", "3.2.0", "O(log(N))", "Returns the geohashes of members."),
    doc("geopos", "3.2.0", "O(N)", "Returns the longitudes and latitudes of members."),
    doc("georadius", "3.2.0", "O(N+log(M))", "Finds the members around a point; returns or stores them.").deprecated("6.2.0", "GEOSEARCH and GEOSEARCHSTORE"),
    doc("georadius_ro", "3.2.10", "O(N+log(M))", "Finds the members around a point.").deprecated("6.2.0", "GEOSEARCH"),
    doc("georadiusbymember", "3.2.0", "O(N+log(M))", "Finds the members around a member; returns or stores them.").deprecated("6.2.0", "GEOSEARCH and GEOSEARCHSTORE"),
    doc("georadiusbymember_ro", "3.2.10", "O(N+log(M))", "Finds the members around a member.").deprecated("6.2.0", "GEOSEARCH"),
    doc("geosearch", "6.2.0", "O(N+log(M))", "Finds the members within a circle or a box."),
    doc("geosearchstore", "6.2.0", "O(N+log(M))", "Stores the members within a circle or a box."),
];
