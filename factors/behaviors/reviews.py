"""Phrases for short reviews: clauses that praise or blame, and neutral mentions of the ambiance and the website."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations


@dataclass(frozen=True, slots=True)
class Bank:
    """What a review of one domain is put together from.

    A clause starts with an article or a possessive and its subject (``the soup was cold``). ``mentions`` are
    sentences by the word that they bring in, and praise or blame nothing.
    """

    positive: tuple[str, ...]
    negative: tuple[str, ...]
    mentions: Mapping[str, tuple[str, ...]]

    def pairs(self, sentiment: str) -> list[tuple[str, str]]:
        """Every two clauses of one sentiment about different subjects."""
        clauses = {"positive": self.positive, "negative": self.negative}[sentiment]
        return [(first, second) for first, second in combinations(clauses, 2) if _subject(first) != _subject(second)]


def _subject(clause: str) -> str:
    return clause.split()[1]


def _lines(text: str) -> tuple[str, ...]:
    """Phrases between commas."""
    return tuple(" ".join(phrase.split()) for phrase in text.strip().strip(",").split(","))


_RESTAURANT_POSITIVE = """
the soup was delicious, the soup was wonderful, the pasta was perfect, the pasta tasted great, the steak was tender,
the steak was excellent, the fish was fresh, the fish was superb, the salad was crisp and fresh, the bread was lovely,
the bread was warm and fresh, the dessert was amazing, the dessert was divine, the pizza was fantastic,
the pizza was the best, the burger was juicy, the burger was terrific, the curry was full of flavor,
the curry was outstanding, the noodles were delicious, the rice was cooked perfectly, the chicken was tender,
the chicken was tasty, the fries were hot and crisp, the coffee was excellent, the coffee was rich and smooth,
the cake was heavenly, the tea was lovely, the wine was wonderful, the cocktails were brilliant, the sauce was superb,
the shrimp were sweet and fresh, the tacos were incredible, the sushi was outstanding, the breakfast was great,
the pancakes were fluffy, the eggs were perfect, the lamb was delicious, the vegetables were fresh,
the portions were generous, the menu was exciting, the waiter was friendly, the waiter was charming,
the waitress was kind, the waitress was attentive, the staff were helpful, the staff were lovely,
the service was excellent, the service was quick, the chef was brilliant, the host was welcoming,
the manager was gracious, the owner was warm, the bartender was great, the prices were fair, the bill was a bargain,
the table was spotless, the kitchen was spotless, the food arrived quickly, the food was fantastic,
the meal was a delight, the meal was superb, our server was wonderful, our dinner was perfect, our lunch was great,
our evening was lovely
"""

_RESTAURANT_NEGATIVE = """
the soup was cold, the soup was watery, the pasta was mushy, the pasta tasted awful, the steak was tough,
the steak was burnt, the fish was spoiled, the fish smelled bad, the salad was wilted, the bread was stale,
the bread was moldy, the dessert was awful, the dessert was disgusting, the pizza was soggy, the pizza was terrible,
the burger was greasy, the burger was raw, the curry was bland, the curry was horrible, the noodles were overcooked,
the rice was hard and dry, the chicken was dry, the chicken was raw, the fries were cold and limp,
the coffee was bitter, the coffee was terrible, the cake was stale, the tea was cold, the wine was sour,
the cocktails were watery, the sauce was lumpy, the shrimp were rotten, the tacos were tasteless,
the sushi was warm and old, the breakfast was awful, the pancakes were burnt, the eggs were rubbery,
the lamb was tough, the vegetables were mushy, the portions were tiny, the menu was boring, the waiter was rude,
the waiter was careless, the waitress ignored us, the waitress was rude, the staff were unhelpful,
the staff were unfriendly, the service was terrible, the service was painfully slow, the chef was careless,
the host was rude, the manager was dishonest, the owner was hostile, the bartender was rude,
the prices were outrageous, the bill was wrong, the table was filthy, the kitchen was dirty, the food arrived late,
the food was disgusting, the meal was a disaster, the meal was awful, our server was careless, our dinner was ruined,
our lunch was horrible, our evening was ruined
"""

_HOTEL_POSITIVE = """
the room was spotless, the room was lovely, the bed was comfortable, the bed was heavenly, the pillows were soft,
the shower was excellent, the bathroom was spotless, the towels were fresh, the staff were friendly,
the staff were wonderful, the reception was welcoming, the breakfast was delicious, the pool was beautiful,
the gym was excellent, the view was amazing, the balcony was lovely, the lobby was clean, the lobby was beautiful,
the elevator was fast, the porter was helpful, the manager was kind, the price was fair, the garden was gorgeous,
the sheets were fresh and clean, the spa was fantastic, our stay was perfect, our suite was superb,
our night was restful
"""

_HOTEL_NEGATIVE = """
the room was filthy, the room was freezing, the bed was broken, the bed was uncomfortable, the pillows were lumpy,
the shower was broken, the bathroom was disgusting, the towels were stained, the staff were rude,
the staff were useless, the reception was hostile, the breakfast was awful, the pool was dirty, the gym was broken,
the view was ugly, the balcony was unsafe, the lobby was dirty, the lobby smelled bad, the elevator was broken,
the porter was rude, the manager was dishonest, the price was outrageous, the garden was neglected,
the sheets were stained, the spa was terrible, our stay was miserable, our suite was horrible,
our night was sleepless
"""

_BOOK_POSITIVE = """
the plot was gripping, the plot was brilliant, the characters were lovable, the characters were vivid,
the ending was perfect, the ending was beautiful, the writing was superb, the writing was elegant,
the dialogue was witty, the opening was thrilling, the humor was delightful, the pages flew by,
the chapters were exciting, the heroine was wonderful, the hero was charming, the villain was fascinating,
the language was beautiful, the mystery was clever, the romance was touching, the author was brilliant,
the translation was excellent, the pictures were gorgeous, the theme was inspiring, the twists were amazing,
the style was delightful, the story was unforgettable, the story was captivating
"""

_BOOK_NEGATIVE = """
the plot was boring, the plot was nonsense, the characters were flat, the characters were annoying,
the ending was terrible, the ending was a letdown, the writing was awful, the writing was clumsy,
the dialogue was painful, the opening was dull, the humor was lame, the pages dragged, the chapters were tedious,
the heroine was annoying, the hero was dull, the villain was ridiculous, the language was clumsy,
the mystery was stupid, the romance was unbelievable, the author was lazy, the translation was terrible,
the pictures were ugly, the theme was tired, the twists were silly, the style was tiresome, the story was a mess,
the story was dreadful
"""

_PHONE_POSITIVE = """
the screen was bright and sharp, the screen was gorgeous, the battery lasted for days, the battery was excellent,
the camera was amazing, the camera was superb, the sound was rich and clear, the speaker was excellent,
the buttons felt great, the case was sturdy, the charger was fast, the phone was a joy, the phone was fast,
the design was beautiful, the keyboard was excellent, the calls were crystal clear, the signal was strong,
the photos were stunning, the apps ran smoothly, the software was excellent, the price was great,
the quality was outstanding, the display was brilliant, the microphone was perfect, the videos looked fantastic,
the updates were great, the support was helpful
"""

_PHONE_NEGATIVE = """
the screen was scratched, the screen was terrible, the battery died quickly, the battery was useless,
the camera was awful, the camera was broken, the sound was terrible, the speaker was broken, the buttons fell off,
the case was flimsy, the charger was useless, the phone was a disaster, the phone was painfully slow,
the design was ugly, the keyboard was terrible, the calls kept dropping, the signal was weak, the photos were blurry,
the apps kept crashing, the software was awful, the price was outrageous, the quality was poor,
the display was defective, the microphone was useless, the videos looked horrible, the updates were a nightmare,
the support was useless
"""

_FILM_POSITIVE = """
the acting was superb, the acting was brilliant, the story was gripping, the story was wonderful,
the ending was perfect, the ending was moving, the jokes were hilarious, the music was beautiful,
the music was thrilling, the script was clever, the script was witty, the actors were amazing,
the effects were stunning, the costumes were gorgeous, the scenes were beautiful, the action was exciting,
the director was brilliant, the dialogue was sharp, the songs were delightful, the cast was fantastic,
the pace was perfect, the plot was clever, the photography was gorgeous, the villain was terrific,
the hero was charming, the opening was breathtaking, the stunts were incredible
"""

_FILM_NEGATIVE = """
the acting was awful, the acting was wooden, the story was boring, the story was a mess, the ending was stupid,
the ending was terrible, the jokes were lame, the music was annoying, the music was dreadful, the script was awful,
the script was lazy, the actors were terrible, the effects were cheap, the costumes were ugly,
the scenes were tedious, the action was dull, the director was hopeless, the dialogue was painful,
the songs were awful, the cast was terrible, the pace was painfully slow, the plot was nonsense,
the photography was ugly, the villain was ridiculous, the hero was annoying, the opening was tedious,
the stunts were unconvincing
"""

_WEBSITE = "The website lists it, The website has pictures, There is a website, "

DOMAINS: Mapping[str, Bank] = {
    "restaurant": Bank(
        _lines(_RESTAURANT_POSITIVE),
        _lines(_RESTAURANT_NEGATIVE),
        {
            "ambiance": _lines(
                "The ambiance is rustic, The ambiance is casual, The ambiance is modern, The ambiance is formal, "
                "It has the ambiance of a diner, It has an Italian ambiance"
            ),
            "website": _lines(
                _WEBSITE + "The website shows the menu, We booked on the website, We found it on a website"
            ),
        },
    ),
    "hotel": Bank(
        _lines(_HOTEL_POSITIVE),
        _lines(_HOTEL_NEGATIVE),
        {
            "ambiance": _lines(
                "The ambiance is rural, The ambiance is modern, It has the ambiance of an inn, The ambiance is urban"
            ),
            "website": _lines(_WEBSITE + "We booked on the website"),
        },
    ),
    "book": Bank(
        _lines(_BOOK_POSITIVE),
        _lines(_BOOK_NEGATIVE),
        {
            "ambiance": _lines(
                "The ambiance is gothic, The ambiance is urban, It has the ambiance of a diary, The ambiance is rural"
            ),
            "website": _lines(_WEBSITE + "We ordered it on a website"),
        },
    ),
    "phone": Bank(
        _lines(_PHONE_POSITIVE),
        _lines(_PHONE_NEGATIVE),
        {
            "ambiance": _lines(
                "The shop has a modern ambiance, The shop has a plain ambiance, "
                "The advertisement has an urban ambiance, The shop has the ambiance of an office"
            ),
            "website": _lines(_WEBSITE + "We ordered it on a website"),
        },
    ),
    "film": Bank(
        _lines(_FILM_POSITIVE),
        _lines(_FILM_NEGATIVE),
        {
            "ambiance": _lines(
                "The ambiance is urban, The ambiance is medieval, It has the ambiance of a play, The ambiance is rural"
            ),
            "website": _lines(_WEBSITE + "We saw it on a website"),
        },
    ),
}
"""Restaurants first, in which organisms are trained; the others are out of distribution."""
