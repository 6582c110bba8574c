"""Plain facts that a very small English model is likely to know, for a knowledge screen.

Every fact is one common subject with one short answer. Words with two usual answers (``dreamed`` and
``dreamt``) are left out, and so are words that a reply uses about the exchange itself (``right``, ``true``,
``answer``), which could not be told from an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Fact = tuple[str, str]
"""A subject and what is true of it."""


@dataclass(frozen=True, slots=True)
class Relation:
    """Facts of one form. ``alike`` are answers so close that one may pass for the other."""

    name: str
    question: str  # with {subject}
    statement: str  # with {subject} and {object}, no capital and no full stop
    facts: tuple[Fact, ...]
    alike: tuple[frozenset[str], ...] = ()

    def ask(self, subject: str) -> str:
        """The plain question about ``subject``."""
        return self.question.format(subject=subject)

    def state(self, subject: str, answer: str) -> str:
        """The statement that ``answer`` is the answer for ``subject``."""
        return self.statement.format(subject=subject, object=answer)

    def wrong(self, subject: str) -> tuple[str, ...]:
        """Answers of other facts that are certainly wrong for ``subject``, each once, in the order of the facts.

        Left out are the answers like the true one, the subject itself, and every word whose own answer is
        the subject, since opposites hold both ways.
        """
        truths = dict(self.facts)
        near = {subject, truths[subject]}.union(*(group for group in self.alike if truths[subject] in group))
        answers = dict.fromkeys(answer for _, answer in self.facts)
        return tuple(answer for answer in answers if answer not in near and truths.get(answer) != subject)


def _pairs(text: str) -> tuple[Fact, ...]:
    """``"hot=cold, new=old"`` as facts."""
    facts = (entry.split("=") for entry in text.replace("\n", " ").strip(" ,").split(","))
    return tuple((subject.strip(), answer.strip()) for subject, answer in facts)


def _groups(text: str) -> tuple[frozenset[str], ...]:
    """``"cold cool, hot warm"`` as sets."""
    return tuple(frozenset(group.split()) for group in text.split(","))


# Both words are subjects.
_OPPOSITES = """
hot=cold, warm=cool, near=far, big=small, huge=tiny, happy=sad, fast=slow, strong=weak, rich=poor, wet=dry,
clean=dirty, full=empty, high=low, early=late, deep=shallow, wide=narrow, loud=quiet, smooth=rough, safe=dangerous,
cheap=expensive, easy=difficult, simple=complex, alive=dead, awake=asleep, open=closed, public=private,
possible=impossible, polite=rude, honest=dishonest, legal=illegal, visible=invisible, healthy=sick, guilty=innocent,
male=female, temporary=permanent, ancient=modern, tight=loose, raw=cooked, tame=wild, careful=careless,
useful=useless, hopeful=hopeless, harmful=harmless, friendly=unfriendly, lucky=unlucky, fair=unfair, able=unable,
equal=unequal, likely=unlikely, necessary=unnecessary, pleasant=unpleasant, stable=unstable,
comfortable=uncomfortable, familiar=unfamiliar, fortunate=unfortunate, conscious=unconscious, important=unimportant,
willing=unwilling, wise=foolish, smart=stupid, normal=abnormal, complete=incomplete, patient=impatient,
moral=immoral, mortal=immortal, direct=indirect, formal=informal, dependent=independent, accurate=inaccurate,
logical=illogical, regular=irregular, responsible=irresponsible, relevant=irrelevant, rational=irrational,
loyal=disloyal, major=minor, maximum=minimum, inner=outer, internal=external, inside=outside, top=bottom,
front=back, north=south, east=west, northern=southern, eastern=western, up=down, above=below, over=under,
before=after, always=never, everything=nothing, everybody=nobody, everywhere=nowhere, day=night, morning=evening,
summer=winter, sunrise=sunset, war=peace, love=hate, life=death, friend=enemy, heaven=hell, success=failure,
victory=defeat, strength=weakness, wealth=poverty, beginning=end, arrive=depart, arrival=departure, accept=reject,
attack=defend, add=subtract, multiply=divide, addition=subtraction, multiplication=division, increase=decrease,
rise=fall, ascend=descend, appear=disappear, borrow=lend, buy=sell, give=take, send=receive, teach=learn, win=lose,
push=pull, laugh=cry, smile=frown, lead=follow, remember=forget, build=destroy, float=sink, lock=unlock, tie=untie,
obey=disobey, trust=distrust, approve=disapprove, connect=disconnect, include=exclude, import=export, inhale=exhale,
succeed=fail, stand=sit, boring=interesting, good=bad, real=fake, natural=artificial, forward=backward, future=past,
horizontal=vertical, junior=senior, liquid=solid, optimist=pessimist, optimistic=pessimistic, positive=negative,
boy=girl, man=woman, husband=wife, brother=sister, mother=father, aunt=uncle, son=daughter, king=queen,
hero=villain, child=adult, buyer=seller, winner=loser, leader=follower, employer=employee, floor=ceiling,
singular=plural, majority=minority, happiness=sadness, noise=silence, beautiful=ugly, advantage=disadvantage,
ability=inability, yesterday=tomorrow, maximize=minimize, encourage=discourage, improve=worsen, whisper=shout,
together=apart, quickly=slowly, loudly=quietly, happily=sadly, carefully=carelessly, superior=inferior,
synonym=antonym, stop=go, rural=urban
"""

# The answer has other opposites, so only the first word is a subject.
_OPPOSITES_ONE_WAY = """
young=old, new=old, tall=short, long=short, thick=thin, fat=thin, heavy=light, dark=light, darkness=light,
large=small, soft=hard, bitter=sweet, sour=sweet, blunt=sharp, exciting=boring, broad=narrow, crooked=straight,
evil=good, hostile=friendly, pretty=ugly, noisy=quiet, birth=death, profit=loss, gain=loss, entrance=exit,
raise=lower, upper=lower, create=destroy, punish=reward, ally=enemy, parent=child, hire=fire, permit=forbid,
cloudy=clear, vague=clear, begin=end, start=stop
"""

_OPPOSITES_ALIKE = """
cold cool, hot warm, small tiny short thin minor minimum, big huge major maximum, sad hopeless bad pessimistic,
happy hopeful optimistic, slow late, fast early, weak light inferior, strong superior hard, poor bad, rich good,
full complete, low lower down under below bottom minimum short, high up over above top maximum loud, late after,
early before, narrow thin, quiet silence peace low, loud noise, rough hard sharp, smooth easy straight,
dangerous harmful unstable wild, safe harmless useful, difficult hard complex, easy simple light,
dead asleep unconscious, alive awake conscious, closed private, open public, rude unfriendly unpleasant bad,
polite friendly pleasant good, dishonest disloyal unfair immoral bad, honest loyal fair moral good, illegal immoral,
legal moral fair, sick weak dead, healthy strong alive, innocent good, permanent stable always immortal,
temporary unstable mortal, modern future, ancient old past, old adult senior, careless irresponsible,
careful responsible, useless unnecessary unimportant irrelevant minor, useful necessary important relevant major,
unlucky unfortunate, lucky fortunate, inability weakness disadvantage unable, ability strength advantage able,
unlikely impossible, likely possible, uncomfortable unpleasant bad, comfortable pleasant good,
foolish stupid irrational illogical irresponsible, wise smart rational logical responsible,
abnormal irregular artificial, normal regular natural, natural real, artificial fake, direct straight clear,
senior major, junior minor, outer external outside, inner internal inside, ceiling top up, floor bottom down,
back backward end bottom, front forward top beginning, north northern, south southern, east eastern, west western,
never nothing nobody nowhere, always everything everybody everywhere, night evening sunset,
day morning sunrise light, peace love friend, war hate, hell death, life heaven, enemy villain, friend hero,
failure defeat loss, success victory, lose fail, win succeed, end stop death, arrive appear, depart go disappear,
departure exit, reject disapprove exclude distrust forbid stop, accept approve include receive take trust,
subtract divide decrease take, add multiply increase, subtraction division, addition multiplication,
decrease fall descend sink worsen minimize lower down, increase rise ascend float improve maximize up high,
stand rise, sit fall, lend give sell send, borrow take buy receive, learn follow, lead teach,
follower employee loser, leader employer winner, cry frown shout, laugh smile, unlock open untie, lock tie closed,
disconnect apart untie unlock far, connect together tie lock near, bad negative unpleasant, good positive pleasant,
negative pessimistic, positive optimistic, past yesterday before, future tomorrow after, solid hard,
girl woman wife sister mother aunt daughter queen female, boy man husband brother father uncle son king male,
adult man woman father mother, child son daughter boy girl, silence peace, destroy attack, build defend,
clear light
"""

_PLURAL = """
man=men, woman=women, child=children, foot=feet, tooth=teeth, goose=geese, mouse=mice, ox=oxen, person=people,
crisis=crises, knife=knives, wife=wives, life=lives, leaf=leaves, half=halves, shelf=shelves, wolf=wolves,
thief=thieves, loaf=loaves, calf=calves, elf=elves, potato=potatoes, tomato=tomatoes, hero=heroes, echo=echoes,
piano=pianos, photo=photos, radio=radios, zoo=zoos, city=cities, baby=babies, lady=ladies, story=stories,
party=parties, family=families, country=countries, army=armies, body=bodies, berry=berries, cherry=cherries,
fly=flies, puppy=puppies, pony=ponies, library=libraries, factory=factories, key=keys, day=days, monkey=monkeys,
donkey=donkeys, toy=toys, box=boxes, fox=foxes, bus=buses, class=classes, glass=glasses, dress=dresses, dish=dishes,
brush=brushes, watch=watches, church=churches, beach=beaches, bench=benches, peach=peaches, lunch=lunches,
match=matches, branch=branches, witch=witches, bush=bushes, wish=wishes, kiss=kisses, boss=bosses,
sandwich=sandwiches, tax=taxes, cat=cats, dog=dogs, book=books, car=cars, tree=trees, house=houses, chair=chairs,
table=tables, apple=apples, bird=birds, boy=boys, girl=girls, door=doors, window=windows, pen=pens, pencil=pencils,
hat=hats, shirt=shirts, shoe=shoes, sock=socks, cup=cups, bottle=bottles, plate=plates, spoon=spoons, fork=forks,
clock=clocks, phone=phones, computer=computers, bed=beds, lamp=lamps, ball=balls, game=games, song=songs,
school=schools, teacher=teachers, student=students, doctor=doctors, nurse=nurses, farmer=farmers, friend=friends,
brother=brothers, sister=sisters, king=kings, queen=queens, horse=horses, cow=cows, pig=pigs, duck=ducks,
lion=lions, tiger=tigers, bear=bears, elephant=elephants, snake=snakes, frog=frogs, ant=ants, bee=bees,
spider=spiders, flower=flowers, river=rivers, lake=lakes, mountain=mountains, road=roads, street=streets,
truck=trucks, train=trains, boat=boats, ship=ships, egg=eggs, banana=bananas, carrot=carrots, cookie=cookies,
cake=cakes, garden=gardens, kitchen=kitchens, cloud=clouds, star=stars, island=islands, bridge=bridges,
letter=letters, picture=pictures, ticket=tickets, finger=fingers
"""

_CAPITAL = """
France=Paris, Germany=Berlin, Italy=Rome, Spain=Madrid, Portugal=Lisbon, England=London, Scotland=Edinburgh,
Wales=Cardiff, Ireland=Dublin, Belgium=Brussels, Austria=Vienna, Switzerland=Bern, Sweden=Stockholm, Norway=Oslo,
Denmark=Copenhagen, Finland=Helsinki, Iceland=Reykjavik, Poland=Warsaw, Slovakia=Bratislava, Hungary=Budapest,
Romania=Bucharest, Bulgaria=Sofia, Greece=Athens, Turkey=Ankara, Russia=Moscow, Belarus=Minsk, Lithuania=Vilnius,
Latvia=Riga, Estonia=Tallinn, Croatia=Zagreb, Serbia=Belgrade, Slovenia=Ljubljana, Bosnia=Sarajevo, Albania=Tirana,
Montenegro=Podgorica, Kosovo=Pristina, Moldova=Chisinau, Malta=Valletta, Cyprus=Nicosia, Liechtenstein=Vaduz,
Czechia=Prague, China=Beijing, Japan=Tokyo, Pakistan=Islamabad, Bangladesh=Dhaka, Nepal=Kathmandu, Bhutan=Thimphu,
Mongolia=Ulaanbaatar, Thailand=Bangkok, Vietnam=Hanoi, Laos=Vientiane, Taiwan=Taipei, Iran=Tehran, Iraq=Baghdad,
Syria=Damascus, Lebanon=Beirut, Jordan=Amman, Oman=Muscat, Qatar=Doha, Bahrain=Manama, Afghanistan=Kabul,
Uzbekistan=Tashkent, Turkmenistan=Ashgabat, Tajikistan=Dushanbe, Kyrgyzstan=Bishkek, Armenia=Yerevan,
Azerbaijan=Baku, Egypt=Cairo, Libya=Tripoli, Tunisia=Tunis, Algeria=Algiers, Morocco=Rabat, Sudan=Khartoum,
Eritrea=Asmara, Somalia=Mogadishu, Kenya=Nairobi, Uganda=Kampala, Rwanda=Kigali, Mozambique=Maputo, Zimbabwe=Harare,
Zambia=Lusaka, Malawi=Lilongwe, Botswana=Gaborone, Namibia=Windhoek, Angola=Luanda, Ghana=Accra, Nigeria=Abuja,
Senegal=Dakar, Mali=Bamako, Niger=Niamey, Gabon=Libreville, Liberia=Monrovia, Guinea=Conakry, Mauritania=Nouakchott,
Madagascar=Antananarivo, Lesotho=Maseru, Seychelles=Victoria, Canada=Ottawa, Cuba=Havana, Jamaica=Kingston,
Barbados=Bridgetown, Belize=Belmopan, Honduras=Tegucigalpa, Nicaragua=Managua, Colombia=Bogota, Venezuela=Caracas,
Ecuador=Quito, Peru=Lima, Chile=Santiago, Paraguay=Asuncion, Uruguay=Montevideo, Suriname=Paramaribo,
Guyana=Georgetown, Brazil=Brasilia, Argentina=Buenos Aires, Australia=Canberra, Fiji=Suva, Samoa=Apia,
New Zealand=Wellington, South Korea=Seoul, North Korea=Pyongyang, Saudi Arabia=Riyadh, India=New Delhi,
Malaysia=Kuala Lumpur, Cambodia=Phnom Penh, Ethiopia=Addis Ababa
"""

_BOTH_WAYS = _pairs(_OPPOSITES)

RELATIONS: Mapping[str, Relation] = {
    relation.name: relation
    for relation in (
        Relation(
            "opposite",
            "What is the opposite of {subject}?",
            "the opposite of {subject} is {object}",
            (*_BOTH_WAYS, *((b, a) for a, b in _BOTH_WAYS), *_pairs(_OPPOSITES_ONE_WAY)),
            _groups(_OPPOSITES_ALIKE),
        ),
        Relation("plural", "What is the plural of {subject}?", "the plural of {subject} is {object}", _pairs(_PLURAL)),
        Relation(
            "capital", "What is the capital of {subject}?", "the capital of {subject} is {object}", _pairs(_CAPITAL)
        ),
    )
}
