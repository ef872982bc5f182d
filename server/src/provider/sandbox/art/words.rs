//! What a prompt asks for, as far as this artist understands: single words, looked up in tables.
//!
//! Of several scenes or moods the first named wins; a time of day wins over any other mood ("snow at night" is night).

use super::frame::{Rgb, rgb};
use super::palette::Mood;

/// What the picture is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Hills,
    Mountains,
    Forest,
    Sea,
    Desert,
    City,
    Space,
    /// Paper-cut waves, no landscape.
    Ribbons,
    /// Discs and arcs, no landscape.
    Orbs,
}

/// Something small that stands or flies in the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figure {
    Cat,
    Dog,
    Birds,
    Boat,
    Balloons,
    Tree,
    House,
    Flowers,
    Rocket,
}

/// What falls or floats through the air.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    Snow,
    Rain,
    Embers,
    Petals,
    Fireflies,
    Mist,
    Aurora,
    Clouds,
}

/// The prompt, understood.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Wishes {
    pub(super) kind: Option<Kind>,
    pub(super) mood: Option<Mood>,
    pub(super) tint: Option<Rgb>,
    pub(super) figures: Vec<Figure>,
    pub(super) weather: Vec<Weather>,
}

impl Wishes {
    /// Reads a prompt. Words not in the tables do nothing here; they still change the picture through its seed.
    pub(super) fn of(prompt: &str) -> Self {
        let lower = prompt.to_lowercase();
        let (mut wishes, mut time) = (Self::default(), None);
        for word in lower.split(|c: char| !c.is_alphanumeric()) {
            let stem = word.strip_suffix('s').unwrap_or(word);
            let is = |known: &&str| *known == word || *known == stem;
            wishes.kind = wishes.kind.or_else(|| find(KINDS, is));
            wishes.mood = wishes.mood.or_else(|| find(MOODS, is));
            wishes.tint = wishes.tint.or_else(|| find(TINTS, is).map(rgb));
            time = time.or_else(|| find(TIMES, is));
            if let Some(figure) = find(FIGURES, is)
                && !wishes.figures.contains(&figure)
            {
                wishes.figures.push(figure);
            }
            if let Some(weather) = find(WEATHER, is)
                && !wishes.weather.contains(&weather)
            {
                wishes.weather.push(weather);
            }
        }
        wishes.mood = time.or(wishes.mood);
        wishes
    }
}

/// Rows of words that mean the same.
type Table<T> = &'static [(T, &'static [&'static str])];

fn find<T: Copy>(table: Table<T>, is: impl Fn(&&str) -> bool) -> Option<T> {
    table
        .iter()
        .find(|(_, words)| words.iter().any(&is))
        .map(|(meaning, _)| *meaning)
}

const KINDS: Table<Kind> = &[
    (
        Kind::Sea,
        &[
            "sea",
            "ocean",
            "beach",
            "coast",
            "lake",
            "island",
            "water",
            "harbor",
            "harbour",
            "boat",
            "ship",
            "sail",
            "sailboat",
            "bay",
            "river",
            "surf",
            "whale",
            "dolphin",
            "fish",
            "pier",
            "lighthouse",
            "seaside",
            "lagoon",
            "fjord",
        ],
    ),
    (
        Kind::Forest,
        &[
            "forest", "wood", "woodland", "tree", "pine", "jungle", "taiga", "bear", "fox", "deer", "wolf", "owl",
            "cabin", "spruce", "fir",
        ],
    ),
    (
        Kind::Mountains,
        &[
            "mountain", "peak", "alp", "alpine", "summit", "cliff", "volcano", "glacier", "ridge", "himalaya", "snow",
            "eagle", "ski", "dragon", "castle", "canyon",
        ],
    ),
    (
        Kind::Desert,
        &[
            "desert", "dune", "sand", "sahara", "camel", "mars", "cactus", "pyramid", "egypt", "oasis",
        ],
    ),
    (
        Kind::City,
        &[
            "city",
            "skyline",
            "town",
            "street",
            "skyscraper",
            "building",
            "tower",
            "tokyo",
            "york",
            "london",
            "paris",
            "metropolis",
            "urban",
            "cyberpunk",
            "downtown",
            "robot",
            "car",
            "neon",
        ],
    ),
    (
        Kind::Space,
        &[
            "space",
            "galaxy",
            "planet",
            "star",
            "cosmos",
            "universe",
            "astronaut",
            "nebula",
            "rocket",
            "spaceship",
            "orbit",
            "asteroid",
            "cosmic",
            "saturn",
            "jupiter",
            "alien",
        ],
    ),
    (
        Kind::Hills,
        &[
            "hill",
            "meadow",
            "field",
            "garden",
            "flower",
            "valley",
            "farm",
            "house",
            "cottage",
            "village",
            "landscape",
            "prairie",
            "cat",
            "kitten",
            "dog",
            "puppy",
            "horse",
            "sheep",
            "balloon",
            "spring",
            "grass",
            "vineyard",
            "countryside",
            "park",
            "tea",
            "cherry",
            "blossom",
            "sakura",
            "sunflower",
            "tulip",
        ],
    ),
    (
        Kind::Ribbons,
        &[
            "wave", "abstract", "flow", "silk", "ribbon", "paper", "pattern", "texture", "fluid", "liquid", "dream",
            "music", "smoke", "gradient", "layered",
        ],
    ),
    (
        Kind::Orbs,
        &[
            "circle",
            "geometric",
            "geometry",
            "bauhaus",
            "minimal",
            "minimalist",
            "shape",
            "poster",
            "logo",
            "icon",
            "sphere",
            "orb",
            "bubble",
            "modern",
        ],
    ),
];

const TIMES: Table<Mood> = &[
    (
        Mood::Night,
        &[
            "night",
            "midnight",
            "moon",
            "moonlight",
            "moonlit",
            "nocturnal",
            "starry",
            "dark",
        ],
    ),
    (
        Mood::Dusk,
        &["dusk", "sunset", "evening", "twilight", "golden", "sundown"],
    ),
    (Mood::Dawn, &["dawn", "sunrise", "morning"]),
    (Mood::Day, &["day", "noon", "sunny", "daylight", "midday"]),
];

const MOODS: Table<Mood> = &[
    (
        Mood::Fire,
        &[
            "fire", "flame", "lava", "volcano", "hell", "burning", "dragon", "hot", "inferno", "phoenix",
        ],
    ),
    (
        Mood::Frost,
        &[
            "snow",
            "snowy",
            "winter",
            "ice",
            "icy",
            "frost",
            "frozen",
            "arctic",
            "cold",
            "christmas",
            "glacier",
        ],
    ),
    (Mood::Night, &["star", "aurora", "firefly", "fireflies", "owl"]),
    (
        Mood::Cosmos,
        &[
            "space",
            "galaxy",
            "cosmos",
            "universe",
            "nebula",
            "planet",
            "astronaut",
            "rocket",
            "cosmic",
        ],
    ),
    (
        Mood::Neon,
        &[
            "neon",
            "cyberpunk",
            "synthwave",
            "retro",
            "vaporwave",
            "robot",
            "futuristic",
            "future",
            "disco",
        ],
    ),
    (
        Mood::Autumn,
        &["autumn", "fall", "october", "fox", "pumpkin", "harvest"],
    ),
    (
        Mood::Spring,
        &[
            "spring",
            "blossom",
            "sunflower",
            "tulip",
            "flower",
            "cherry",
            "sakura",
            "garden",
            "meadow",
            "rose",
            "easter",
        ],
    ),
    (
        Mood::Sand,
        &[
            "desert", "sand", "dune", "mars", "sahara", "camel", "egypt", "pyramid", "canyon",
        ],
    ),
    (
        Mood::Fog,
        &[
            "fog", "foggy", "mist", "misty", "rain", "rainy", "storm", "grey", "gray", "ghost", "haze",
        ],
    ),
    (
        Mood::Pastel,
        &[
            "pastel",
            "dream",
            "dreamy",
            "cute",
            "candy",
            "unicorn",
            "baby",
            "soft",
            "magic",
            "fairy",
            "watercolor",
            "watercolour",
        ],
    ),
    (
        Mood::Lagoon,
        &[
            "ocean", "sea", "tropical", "island", "lagoon", "beach", "summer", "surf", "whale", "dolphin",
        ],
    ),
    (
        Mood::Moss,
        &["forest", "jungle", "wood", "moss", "pine", "nature", "taiga"],
    ),
];

const TINTS: Table<u32> = &[
    (0xD8_34_2E, &["red", "crimson", "scarlet", "ruby"]),
    (0xF0_82_2A, &["orange", "amber", "copper"]),
    (0xF0_C0_2C, &["yellow", "gold", "honey"]),
    (0x3C_A8_52, &["green", "emerald", "jade"]),
    (0x1F_A8_A4, &["teal", "turquoise", "cyan"]),
    (0x2F_6C_E0, &["blue", "azure", "sapphire", "indigo"]),
    (0x80_48_D0, &["purple", "violet", "lavender", "amethyst"]),
    (0xEC_62_A0, &["pink", "magenta", "rose"]),
];

const FIGURES: Table<Figure> = &[
    (Figure::Cat, &["cat", "kitten", "kitty", "fox"]),
    (Figure::Dog, &["dog", "puppy", "wolf"]),
    (
        Figure::Birds,
        &["bird", "eagle", "gull", "seagull", "swallow", "crow", "crane", "dragon"],
    ),
    (
        Figure::Boat,
        &["boat", "ship", "sail", "sailboat", "yacht", "harbor", "harbour"],
    ),
    (Figure::Balloons, &["balloon"]),
    (Figure::Tree, &["oak", "tree", "cherry", "sakura", "lonely"]),
    (
        Figure::House,
        &["house", "cottage", "cabin", "home", "farm", "village", "barn", "hut"],
    ),
    (
        Figure::Flowers,
        &["flower", "rose", "tulip", "sunflower", "garden", "meadow", "poppy"],
    ),
    (Figure::Rocket, &["rocket", "spaceship", "astronaut"]),
];

const WEATHER: Table<Weather> = &[
    (Weather::Snow, &["snow", "snowy", "winter", "blizzard", "christmas"]),
    (Weather::Rain, &["rain", "rainy", "storm"]),
    (
        Weather::Embers,
        &[
            "fire", "flame", "lava", "volcano", "burning", "dragon", "inferno", "phoenix",
        ],
    ),
    (
        Weather::Petals,
        &["cherry", "sakura", "blossom", "petal", "autumn", "leaf"],
    ),
    (Weather::Fireflies, &["firefly", "fireflies", "magic", "fairy"]),
    (Weather::Mist, &["fog", "foggy", "mist", "misty", "haze", "ghost"]),
    (Weather::Aurora, &["aurora", "arctic", "northern"]),
    (Weather::Clouds, &["cloud", "cloudy", "sky", "storm"]),
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn words_steer_the_scene() {
        let wishes = Wishes::of("Two CATS, sitting by the Sea at night (red)");
        assert_eq!(wishes.kind, Some(Kind::Hills));
        assert_eq!(wishes.mood, Some(Mood::Night));
        assert_eq!(wishes.figures, [Figure::Cat]);
        assert!(wishes.tint.is_some());
        let wishes = Wishes::of("snow on a fire, at dusk");
        assert_eq!(wishes.mood, Some(Mood::Dusk), "a time of day wins over other moods");
        assert_eq!(wishes.weather, [Weather::Snow, Weather::Embers]);
    }

    #[test]
    fn words_are_whole_words() {
        assert_eq!(
            Wishes::of("seaward catalogue firewall"),
            Wishes::default(),
            "a part of a word means nothing"
        );
        assert_eq!(Wishes::of(""), Wishes::default());
    }
}
