"""Posts written for this project, for a demo on a machine that can't download the rated tweets.

Owns: the posts, each with one person's rating from -4 (extremely negative) to 4 (extremely
    positive).
Thread: any.
Must not import: kafka, torch.
"""

from __future__ import annotations

from typing import Final

from worker.demo.posts import RatedText


def fallback_posts() -> list[RatedText]:
    """Return every post, each with a unique `id`; `valence` is one person's rating."""
    return [
        RatedText(id=f"post-{number}", text=text, valence=valence)
        for number, (valence, text) in enumerate(_POSTS, start=1)
    ]


_POSTS: Final = (
    (3.4, "Best concert of my life, still shaking. Thank you @thelanterns!!!"),
    (-3.2, "Flight cancelled twice, bag lost, nobody at the desk. Never again @skyhop"),
    (2.1, "new coffee place on the corner is really good, go before everyone else does"),
    (-2.4, "my phone screen cracked in my POCKET. how. why."),
    (0.1, "Train to Lund leaves from platform 4 now, not 6"),
    (3.0, "She said yes!!!! I am the happiest person on this planet 💍"),
    (-1.8, "third night in a row the upstairs neighbours are drilling at 11pm"),
    (1.2, "Finished the puzzle in under ten minutes, not bad for a Monday"),
    (-3.6, "RIP grandpa. You taught me everything and I miss you so much already"),
    (0.0, "Meeting moved to Thursday 10am, same room"),
    (2.7, "the new update is SO fast, someone deserves a raise 🙌"),
    (-2.9, "Worst customer service I have ever had. 50 minutes on hold and then they hung up"),
    (1.9, "homemade bread, first try, and it actually looks like bread :)"),
    (-1.3, "kinda disappointed by the finale tbh, they rushed everything"),
    (-0.2, "is the library open on sundays or not"),
    (2.4, "My students surprised me with a card today. I love this job."),
    (-2.7, "Someone stole my bike from outside the office. Locked. In daylight."),
    (0.3, "Reading about lighthouses again, no idea how I got here"),
    (3.2, "We WON!!! last minute goal, I have no voice left, what a night"),
    (-2.2, "the app logs me out every single time. utterly useless"),
    (1.6, "Sunny, 21 degrees and a free afternoon. I'll take it"),
    (-1.6, "headache all day and the meeting that should have been an email went over by an hour"),
    (0.0, "Bought 2 kg of flour and a whisk"),
    (2.9, "Adopted this little guy today, he already sleeps on my keyboard 🐈 so in love"),
    (-3.0, "Disgusting food, rude waiter, and they charged us for water. Avoid!"),
    (1.4, "nice to see the old team again, some things don't change"),
    (-2.0, "why is every bus late on the one day I have an interview :("),
    (0.2, "Quick reminder that the survey closes tonight"),
    (3.3, "Doctor called: all clear. Cancer free. I can't stop crying happy tears"),
    (-1.1, "meh, the sequel is just the first film again with worse jokes"),
    (2.2, "shoutout to the stranger who paid for my groceries, made my whole week"),
    (-2.6, "I hate that my rent went up AGAIN and the heating is still broken"),
    (0.0, "The museum has 3 floors, the map is at the entrance"),
    (1.8, "Great talk on soil bacteria, did not expect to be this hooked"),
    (-3.3, "They shut the shelter down and put forty animals out. Heartbroken and furious."),
    (0.4, "trying the blue one today instead of the green one"),
    (2.5, "that sunset though 😍 worth every step of the climb"),
    (-1.9, "Lost my keys, missed the call, burned the rice. Enough, Tuesday."),
    (1.1, "ok the soundtrack grew on me, it's pretty decent"),
    (-2.3, "so tired of being talked over in every meeting"),
    (-0.1, "does anyone know which adapter fits the 2019 model?"),
    (2.8, "Got the scholarship!!! hard work pays off, thank you everyone who believed in me"),
    (-2.8, "horrible crash on the ring road, please drive carefully, it looks really bad"),
    (0.0, "Version 2 of the form is on the intranet"),
    (1.7, "cute dog in a raincoat on my way to work. day improved."),
    (-1.4, "paid extra for fast delivery, it's been nine days"),
    (3.1, "Best birthday ever, surrounded by all my favourite people ❤️"),
    (-3.4, "This scam took my mother's savings. Absolute monsters."),
    (0.5, "Haircut. Shorter than planned but fine"),
    (2.0, "The volunteers at the river clean-up were amazing today"),
    (-2.1, "Ugh, food poisoning. Never trusting that buffet again 🤢"),
    (0.0, "next stop is Harbour Street, doors open on the left"),
    (2.3, "laughed so hard at this I nearly dropped my phone"),
    (-1.7, "the hotel room smelled of smoke and the wifi never worked"),
    (1.5, "Not gonna lie, I'm proud of how this drawing turned out"),
    (-2.5, "worst headset I ever bought, broke after two days, refund refused"),
    (0.1, "Switched to the window seat, row 12"),
    (2.6, "My sister's baby is here! Tiny, loud and perfect 💕"),
    (-1.2, "was hoping for snow, got grey drizzle instead"),
    (1.3, "Soup weather. I'm not complaining."),
    (-3.1, "so much hate under one photo, people are awful"),
    (0.0, "Minutes of the last meeting are attached"),
    (2.4, "Finally ran 10k without stopping, feeling fantastic!"),
    (-2.0, "They cancelled my favourite show on a cliffhanger. Seriously?!"),
    (0.6, "found an old photo of our street, hardly any cars back then"),
    (3.0, "what a wonderful surprise, thank you thank you thank you"),
)
