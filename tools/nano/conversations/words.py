"""Word pools with a held-out part, and made-up words.

A value is held out by a checksum of its lower-case text, so training and evaluation can never
share one: `pick(..., held_out=False)` never returns a held-out value, `held_out=True` returns
nothing else.
"""

import zlib
from random import Random

HELD_OUT_SHARE = 8  # one value in eight


def is_held_out(value: str) -> bool:
    return zlib.crc32(value.lower().encode()) % HELD_OUT_SHARE == 0


class Pool:
    def __init__(self, text: str):
        values = [v.strip() for v in text.replace("\n", " ").split(",")]
        self.all = [v for v in dict.fromkeys(values) if v]
        self.train = [v for v in self.all if not is_held_out(v)]
        self.held_out = [v for v in self.all if is_held_out(v)] or self.all

    def pick(self, rng: Random, held_out: bool = False) -> str:
        return rng.choice(self.held_out if held_out else self.train)


NAMES = Pool("""
Ada, Adam, Agnes, Ahmed, Aisha, Alan, Albert, Alex, Alice, Amara, Amir, Amy, Ana, Andrea, Andrew,
Angela, Anna, Anton, Arjun, Arthur, Astrid, Aya, Barbara, Beatrice, Ben, Bianca, Bob, Boris,
Brian, Bruno, Camila, Carl, Carla, Carlos, Caroline, Cecilia, Charles, Charlotte, Chen, Chloe,
Chris, Clara, Claire, Daniel, Daria, David, Deepa, Diana, Diego, Dmitri, Dora, Edgar, Edith,
Elena, Eli, Elias, Elif, Elise, Ella, Emil, Emily, Emma, Eric, Esther, Eva, Fatima, Felix,
Fiona, Florian, Frank, Frida, Gabriel, George, Gerda, Gina, Giulia, Grace, Greta, Gustav, Hana,
Hannah, Hans, Harry, Hassan, Heidi, Helen, Henry, Hiro, Hugo, Ian, Ibrahim, Ida, Igor, Ines,
Ingrid, Irene, Iris, Isabel, Ivan, Jack, Jacob, James, Jana, Jane, Javier, Jens, Jin, Joan,
Johan, John, Jonas, Jose, Julia, Julian, Kai, Karen, Karim, Karl, Kate, Kevin, Khalid, Kim,
Kira, Klaus, Lars, Laura, Leah, Lena, Leo, Leon, Lily, Lina, Linda, Liam, Lisa, Lucas, Lucia,
Lucy, Luis, Luna, Magnus, Maja, Marco, Margaret, Maria, Marie, Mark, Marta, Martin, Mary,
Matteo, Max, Maya, Mei, Mia, Michael, Miguel, Mila, Milan, Mina, Mira, Mohammed, Nadia, Nanna,
Nick, Nicole, Nikolai, Nina, Nora, Olga, Oliver, Olivia, Omar, Oscar, Otto, Pablo, Patrick,
Paul, Paula, Pedro, Peter, Petra, Philip, Pia, Priya, Quentin, Rachel, Rafael, Raj, Ravi,
Rebecca, Rita, Robert, Rosa, Ruby, Ruth, Sam, Samir, Sandra, Sara, Sarah, Sergei, Simon, Sofia,
Sonja, Sophie, Stefan, Stella, Sven, Tanja, Tara, Theo, Thomas, Tim, Tina, Tom, Tomas, Uma,
Ursula, Valentina, Vera, Victor, Viola, Walter, Wanda, Wei, Will, Xenia, Yara, Yasmin, Yuki,
Yusuf, Zara, Zoe
""")

CITIES = Pool("""
Aachen, Accra, Algiers, Amsterdam, Ankara, Antwerp, Athens, Atlanta, Auckland, Austin, Baghdad,
Bangkok, Barcelona, Basel, Beijing, Belgrade, Bergen, Berlin, Bern, Bilbao, Bogota, Bologna,
Bordeaux, Boston, Bremen, Brisbane, Bristol, Brussels, Bucharest, Budapest, Cairo, Calgary,
Cape Town, Chicago, Cologne, Copenhagen, Cordoba, Dakar, Dallas, Delhi, Denver, Detroit, Dhaka,
Dresden, Dubai, Dublin, Edinburgh, Florence, Frankfurt, Geneva, Genoa, Ghent, Glasgow, Graz,
Hamburg, Hanoi, Havana, Helsinki, Houston, Istanbul, Jakarta, Kiev, Kyoto, Lagos, Lausanne,
Leeds, Leipzig, Lima, Lisbon, Liverpool, Ljubljana, London, Los Angeles, Lucerne, Luxembourg,
Lyon, Madrid, Malaga, Manchester, Manila, Marseille, Melbourne, Mexico City, Miami, Milan,
Minsk, Montreal, Moscow, Mumbai, Munich, Nairobi, Nantes, Naples, New York, Nice, Nuremberg,
Oaxaca, Odessa, Osaka, Oslo, Oxford, Palermo, Paris, Perth, Phoenix, Porto, Portland, Prague,
Quebec, Quito, Reykjavik, Riga, Rome, Rotterdam, Salzburg, San Diego, San Francisco, Santiago,
Sao Paulo, Sarajevo, Seattle, Seoul, Seville, Shanghai, Singapore, Sofia, Split, Stockholm,
Stuttgart, Sydney, Tallinn, Tampere, Tangier, Tbilisi, Tehran, Tokyo, Toronto, Toulouse, Turin,
Utrecht, Valencia, Vancouver, Venice, Verona, Vienna, Vilnius, Warsaw, Wellington, York, Zagreb,
Zurich
""")

COLOURS = Pool("""
red, blue, green, yellow, orange, purple, pink, brown, black, white, grey, violet, turquoise,
beige, gold, silver, crimson, teal, indigo, olive, maroon, cyan, magenta, lavender, navy, coral,
amber, scarlet, ivory, lime
""")

ANIMALS = Pool("""
dog, cat, rabbit, hamster, parrot, turtle, goldfish, horse, pony, goat, sheep, duck, goose,
lizard, snake, mouse, ferret, canary, hedgehog, frog, spider, chicken, cow, pig, donkey, owl,
fox, bear, wolf, lion, tiger, dragon, elephant, giraffe, penguin, whale, dolphin, robot, monkey,
squirrel, beaver, badger, otter, eagle, crow, snail, bee, ant, kangaroo, unicorn
""")

FOODS = Pool("""
pizza, pasta, sushi, rice, soup, salad, bread, cheese, curry, tacos, lasagna, noodles, pancakes,
chocolate, ice cream, apple pie, fondue, risotto, dumplings, burgers, falafel, hummus, paella,
stew, potatoes, fish, chicken, steak, tofu, ramen, goulash, waffles, strawberries, mangoes,
bananas, cherries, grapes, olives, popcorn, cake
""")

DRINKS = Pool("""
coffee, tea, water, milk, orange juice, apple juice, lemonade, hot chocolate, cola, beer, wine,
green tea, mint tea, espresso, cocoa, cider, ginger ale, tonic, smoothies, mate
""")

JOBS = Pool("""
teacher, doctor, nurse, baker, farmer, pilot, painter, writer, singer, lawyer, plumber, carpenter,
engineer, programmer, chemist, biologist, librarian, driver, gardener, cook, waiter, student,
journalist, photographer, architect, dentist, judge, mechanic, electrician, musician, dancer,
actor, sailor, soldier, tailor, potter, translator, historian, physicist, postman
""")

COUNTRIES = Pool("""
France, Germany, Italy, Spain, Portugal, Norway, Sweden, Denmark, Finland, Iceland, Ireland,
Poland, Austria, Hungary, Greece, Turkey, Egypt, Morocco, Kenya, Ghana, Nigeria, India, China,
Japan, Korea, Vietnam, Thailand, Indonesia, Australia, Canada, Mexico, Brazil, Argentina, Chile,
Peru, Colombia, Cuba, Switzerland, Belgium, Croatia, Serbia, Romania, Bulgaria, Ukraine, Nepal
""")

SPORTS = Pool("""
football, tennis, chess, hockey, basketball, swimming, running, cycling, skiing, golf, rugby,
cricket, handball, volleyball, boxing, judo, rowing, sailing, climbing, surfing, badminton,
fencing, karate, skating, yoga
""")

HOBBIES = Pool("""
reading, painting, gardening, cooking, baking, fishing, hiking, dancing, singing, knitting,
photography, pottery, drawing, writing, gaming, birdwatching, woodworking, origami, camping,
astronomy, sewing, juggling, carpentry, calligraphy, beekeeping
""")

LANGUAGES = Pool("""
English, French, German, Spanish, Italian, Portuguese, Dutch, Swedish, Danish, Norwegian, Finnish,
Polish, Czech, Hungarian, Greek, Turkish, Arabic, Hebrew, Hindi, Chinese, Japanese, Korean,
Vietnamese, Thai, Russian, Ukrainian, Latin, Swahili, Romanian, Icelandic
""")

INSTRUMENTS = Pool("""
piano, guitar, violin, cello, flute, trumpet, drums, harp, clarinet, saxophone, accordion, organ,
banjo, oboe, trombone, bass, ukulele, harmonica, tuba, viola
""")

OBJECTS = Pool("""
key, lamp, book, hat, coat, umbrella, bottle, clock, mirror, box, basket, ball, kite, boat, bike,
map, coin, ring, letter, candle, chair, table, drum, bell, rope, ladder, wheel, pen, cup, plate,
spoon, knife, stone, feather, shell, blanket, lantern, compass, telescope, watch, phone, wallet,
scarf, glove, button, needle, hammer, bucket, broom, suitcase
""")

PLACES = Pool("""
kitchen, garden, garage, attic, cellar, bedroom, bathroom, office, library, school, museum, park,
forest, river, lake, harbour, market, station, bakery, castle, tower, village, island, valley,
mountain, desert, beach, cave, bridge, barn, mill, theatre, hospital, airport, hotel, shop,
church, square, tunnel, meadow
""")

ADJECTIVES = Pool("""
small, big, old, young, brave, shy, clever, kind, quiet, happy, sad, lazy, curious, gentle, proud,
tired, hungry, friendly, lonely, cheerful, strange, tiny, tall, wise, funny, busy, careful, calm,
lucky, sleepy
""")

TOPICS = Pool("""
quantum physics, philosophy, politics, the stock market, black holes, evolution, the French
Revolution, machine learning, democracy, inflation, photosynthesis, the Roman Empire, chemistry,
gravity, relativity, economics, climate change, poetry, opera, medicine, surgery, law, taxes,
religion, mathematics, calculus, algebra, geometry, statistics, history, art, music theory,
architecture, biology, genetics, vaccines, viruses, computers, the internet, programming, Python,
JavaScript, databases, operating systems, cryptography, robots, space travel, the moon landing,
dinosaurs, volcanoes, earthquakes, oceans, rockets, electricity, magnets, lasers, batteries,
football tactics, fashion, cooking techniques, wine, marketing, psychology, dreams, love,
happiness, the meaning of life, consciousness, ethics, war, peace, Shakespeare, Mozart, Einstein
""")

FAVOURITES = {
    "animal": ANIMALS, "food": FOODS, "drink": DRINKS, "sport": SPORTS, "city": CITIES,
    "country": COUNTRIES, "instrument": INSTRUMENTS, "language": LANGUAGES,
    "season": Pool("spring, summer, autumn, winter"),
    "day": Pool("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday"),
    "month": Pool("January, February, March, April, May, June, July, August, September, October,"
                  "November, December"),
    "fruit": Pool("apple, banana, cherry, mango, orange, pear, plum, grape, kiwi, lemon, melon,"
                  "peach, fig, lime, papaya, apricot, pineapple, strawberry, raspberry"),
    "planet": Pool("Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus, Neptune"),
    "flower": Pool("rose, tulip, lily, daisy, orchid, sunflower, violet, poppy, iris, lavender"),
}

LISTED = sorted({word for value in list(globals().values()) + list(FAVOURITES.values()) if isinstance(value, Pool)
                 for text in value.all for word in text.lower().split() if len(word) > 3})
_LISTED = frozenset(LISTED)

_ONSETS = "b c d f g h j k l m n p r s t v w z br ch cl dr fl gr kr pl qu sh sk sl st th tr vr zh".split()
_VOWELS = "a e i o u a e i o u ai ea ee oo ou y ia".split()
_CODAS = ["", "", "", "n", "r", "l", "s", "t", "x", "m", "k", "nd", "rt", "sh", "ng", "lf", "z", "p"]


def _syllables(rng: Random, count: int) -> str:
    return "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(count)) + rng.choice(_CODAS)


def _spliced(rng: Random) -> str:
    """The beginning of one listed word and the end of another. Tokens that occur in held-out words
    alone would otherwise never be trained."""
    first, second = rng.choice(LISTED), rng.choice(LISTED)
    return first[:rng.randint(2, len(first) - 1)] + second[rng.randint(1, len(second) - 2):]


def made_up(rng: Random, held_out: bool = False) -> str:
    """A word that (almost surely) means nothing, in lower case."""
    while True:
        word = _spliced(rng) if rng.random() < 0.4 else _syllables(rng, rng.choice((1, 2, 2, 2, 3)))
        if 2 < len(word) < 15 and word not in _LISTED and is_held_out(word) == held_out:
            return word


def digits(rng: Random, held_out: bool = False, low: int = 1, high: int = 6) -> str:
    """A number as a string of `low` to `high` digits; short ones are never held out."""
    count = rng.randint(min(max(low, 3), high) if held_out else low, high)
    while True:
        first = rng.choice("123456789")
        number = first + "".join(rng.choice("0123456789") for _ in range(count - 1))
        if count < 3 or is_held_out(number) == held_out:
            return number


def code(rng: Random, held_out: bool = False) -> str:
    """An identifier such as `kx47`, `B-12` or `4821-77`."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    while True:
        shape = rng.choice(("aa11", "A-11", "1111-11", "a1a1", "aaa-111", "AA111", "a111"))
        value = "".join(
            rng.choice(letters) if c == "a" else rng.choice(letters).upper() if c == "A"
            else rng.choice("0123456789") if c == "1" else c for c in shape)
        if is_held_out(value) == held_out:
            return value


def join(items: list[str], word: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + f" {word} " + items[-1]


def article(noun: str) -> str:
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun
