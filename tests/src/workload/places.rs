//! Places on a map.

use super::{Template, exact, items, nearest};

pub(super) const TEMPLATES: &[Template] = &[
    exact("GEOADD k X,Y,p*"),
    exact("GEOADD k NX X Y p"),
    exact("GEOADD k XX CH X Y p"),
    exact("GEOADD k 181 0 p"),
    exact("GEODIST k p p"),
    exact("GEODIST k p p km"),
    exact("GEODIST k p p parsec"),
    exact("GEOHASH k p*"),
    exact("GEOPOS k p*"),
    exact("GEOSEARCH k FROMMEMBER p BYRADIUS r km ASC"),
    exact("GEOSEARCH k FROMLONLAT X Y BYRADIUS r km DESC WITHDIST WITHCOORD WITHHASH"),
    nearest("GEOSEARCH k FROMLONLAT X Y BYBOX r r km ASC COUNT 3 WITHDIST"),
    exact("GEOSEARCHSTORE k k FROMMEMBER p BYRADIUS r km"),
    exact("GEOSEARCHSTORE k k FROMLONLAT X Y BYBOX r r km STOREDIST"),
    exact("GEORADIUS k X Y r km ASC WITHDIST"),
    exact("GEORADIUS k X Y r km STORE k"),
    nearest("GEORADIUSBYMEMBER k p r km DESC COUNT 2 WITHDIST"),
    exact("GEORADIUSBYMEMBER_RO k p r km ASC WITHCOORD"),
    exact("ZREM k p"),
    exact("ZCARD k"),
    items("GEOSEARCH k FROMLONLAT X Y BYRADIUS r km"),
    items("GEOSEARCH k FROMMEMBER p BYBOX r r km WITHCOORD"),
];
