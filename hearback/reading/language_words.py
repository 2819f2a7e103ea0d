"""Frequent words of English and of other languages, in lower case and without accents.

Of other languages: articles, pronouns, prepositions, forms of "be" and "have", and words of first
readers, without those that are English words or names as well (die, son, fire, Sam). Of English:
frequent words that none of these languages has.
"""

OTHER_LANGUAGES = {
    "Catalan": """
        abans agrada ahir aigua aixo als altra altre amb aquella aquest aquesta aqui ara avui blau
        cada cinc com de del dels dema despres deu dos el ell ella els em en ens entre es escola
        esta estan estava et gat germa germana gos groc han havia hem ja la les li llibre lo
        mai mes meu meva molt molta negre nen nena nens nosaltres nostre pare pero perque petit
        petita quan quatre que qui se sempre seu seva si sobre tambe te tenia teu teva tinc tot
        tota tots tres tu un una unes uns va vermell vuit
    """,
    "Croatian": """
        ako ali bi bijeli bila bile bili bilo bio biti ce cetiri crni crveni da danas deset devet
        dijete djeca dobar dobro dva ga gdje hoce hocu htio ide idemo ili imala imao iz izmedu ja
        jako je jer jesam jesi jeste kad kada kako kaze knjiga ko kod koja koje koji kuca kuce
        macka mama mi mnogo mogu moj moja moje moze mu na nad nas ne nesto netko nije nikad njegov
        njen njih novi od ona oni osam ova ovaj ovo pas plavi po pred pri radi sa sada samo se
        sedam sest sestra si skola skole smo stari ste sto su svoj ta taj tamo tata te ti tko tvoj
        uvijek vam vas vec veliki vi voda vrlo za zasto zato zeleni znam zuti
    """,
    "Czech": """
        aby bily bratr bude bych bychom byl byla byli bylo byt cerny cerveny chce chci co ctyri
        dela deset deti devet dite dnes dobre dobry doma domu dva ho hodne ja jak jako jaky jde
        jdeme je jeho jeji jejich jeste jestli jich jsem jsi jsme jsou jste kazdy kde kdo kdy
        kdyby kdyz kniha kocka ktera ktere kteri ktery maji maly mam maminka mela mezi mi modry
        moje mu muj na nad nas ne nebo neco nekdo nema neni nez nikdy novy od ona oni osm pak pes
        po potom pred pri proc protoze rika se sedm sest sestra si skola skoly sobe stary sve svuj
        ta tady taky tam tatinek te techto ti tohle toho tomu tvuj ty uz vam vas ve velky velmi
        vim voda vsechno vsichni vy vzdy za ze zeleny zluty
    """,
    "Danish": """
        af aldrig alle altid blev bliver bog bornene dagen de dem denne der deres derfor det dette
        dit drengen du efter eller en er et fem findes foran fordi fra gar gennem gik gron han har
        havde hedder hele hende hendes hjemme hun hund huset hvad hvem hver hvert hvid hvor
        hvordan hvornar ikke inde ingen jeg jeres kan kom kommer kun leger lille mange med meget
        mellem mens mig mit mod nar ni nogen noget nogle nu ofte og ogsa om op otte pigen sagde
        samme seks selv siden sig siger skal skolen skulle som stor synes syv ti til tre ud ude
        uden vaere vand var ved vi vil vores
    """,
    "Dutch": """
        aan acht achter alle als altijd bij blauw boek broer daar dat de deze dit drie een elke en
        er gaan gaat geel geen gisteren groen groot grote haar hebben heeft hele hem het hier hij
        hoe hond houdt huis hun iedere iets ik je jij jongen jouw jullie kan kinderen klein kleine
        komt kunnen leest maakt maar meisje mensen mij mijn moeder moet moeten mooi morgen naar
        naast negen niet niets nieuw nog nooit om omdat onder onze ook op oud rood slaapt speelt
        spelen te tien toen tot tussen twee uit uw vader vandaag veel vier vijf voor waar waarom
        wanneer waren wat weer wel wie wij wil willen worden wordt ze zeer zegt zes zeven ziet zij
        zijn zo zonder zullen zus zwart
    """,
    "Finnish": """
        aina aiti alla ei eivat emme en ennen etta haluaa haluan han hanella hanen hanet heidan
        heilla hyva hyvin isa ja jalkeen joka joku jotain jotka kahdeksan kaikki kaksi kanssa
        keltainen kirja kissa koira kolme koska koskaan kotiin kotona koulu koulun koulussa
        kouluun kuin kuka kun kuusi kymmenen lapset lapsi meidan meilla menee meni mihin mika
        miksi milloin mina minulla minulle minun minusta minut missa mita miten mukaan musta mutta
        myos naita nakee nama nelja niiden niin niita nyt olemme olen olet olette oli olisi ollut
        ovat paalla paiva paivan paljon pieni pitaa poika punainen sanoi sanoo se seitseman siella
        siihen siina sina sininen sinulla sinun sinut sisalla sita sitten taalla tahan talo talon
        tama tanaan tassa taytyy te teidan tekee tulee tuli tuo tuon tuota tytto ulkona ulos usein
        uusi vahan vaikka valkoinen vanha vesi viela vihrea viisi voi voin yhdeksan yksi
    """,
    "French": """
        ai aime apres au aujourd'hui aussi aux avaient avait avant avec avons beaucoup bien bleu
        c'est ce celle celui ces cet cette ceux chaque chez chien cinq comme d'abord d'un d'une
        dans de demain derriere des deux devant dit dix du eau ecole elle elles en encore enfants
        entre est et etaient etait etre fait faut fille frere garcon grande hier huit ici il ils
        j'ai jamais jaune je joue jusqu'a l'ecole l'on la le les leur leurs livre mais maison
        maman mange meme mes mon n'est ne neuf notre nous ont ou parce pas petit peu peut pourquoi
        qu'il quand quatre que quelque qui quoi s'il sa sans se sera ses soeur sont sous suis sur
        ta tes toujours tous tout toute tres trois tu un une va vais vert veut veux viens vient
        voit vont votre vous
    """,
    "German": """
        aber acht alle alte auch auf aus bei blau bruder buch da damit dann das dass dein deine
        dem der des dich diese dieser dieses dir dort drei du durch ein eine einem einen einer
        eines er es etwas funf ganz gegen gehe gehen geht gelb gestern gibt grosse grun habe haben
        hatte haus heute hier hinter hund ich ihm ihr im immer ist jede jeden jeder kann katze
        kein keine kinder klein kleine kleiner kommt konnen liest macht mein meine mich mir mit
        mochte morgen muss mussen mutter nach neben neue neun nicht nichts nie noch nur oder ohne
        sagt schlaft schon schone schule schwarz schwester sechs sehr sein seine sich sie sieben
        sieht sind sollen spielen spielt uber und unser unter vater viel viele vier vom von vor
        waren wasser weil weiss wenn wer werden wie wieder wir wird wo wollen zehn zu zum zur zwei
        zwischen
    """,
    "Haitian Creole": """
        ak anpil ap apre avan ble chak chen de demen di dlo fe fre genyen gwo isit janm kapab ki
        kijan konn konsa kote kounye la lakay lekol li liv manman maten moun mwen oswa ou paske pi
        piti pou poukisa pral sa se senk si sou te ti timoun tou toujou tout tre twa vini vle wap
        wouj ye yon yonn youn
    """,
    "Hungarian": """
        ahogy ahol akar akarok aki akik akkor alatt amely amelyek amikor apa az azert azok azt
        aztan belole benne csak csinal de egy egyik el elott en engem es ez ezek ezert ezt feher
        fekete fel felett fiu gyerek gyerekek harom haz hazban het hogy hogyan hol ilyen iskola
        iskolaba iskolaban itt jott kek kell ket ketto ki kicsi kilenc konyv kozott kutya lany lat
        latta le legyen lehet lenne lesz lett macska majd masik megy megyek megyunk mellett mert
        mi miatt miert mikor minden mindenki mindig minket mit mond mondta nagyobb nagyon nalam
        negy neha neked nekem neki nekik nekunk nem nyolc olyan ott pedig piros regi rola sarga
        sem semmi senki soha sok szep szeret szeretem szerint te ti titeket tud tudom utan vagy
        vagyis vagyok vagyunk valaki valami vannak vele veled velem velunk volna volt voltam
        voltunk zold
    """,
    "Indonesian": """
        adalah adik agar akan aku anak anda anjing antara apa atau ayah bagaimana banyak begitu
        bermain besar besok biru bisa boleh bukan buku dalam dapat dari delapan dengan di dia dua
        dulu empat enam hanya hari harus hijau hitam ia ibu ini itu itulah jika juga kakak kalau
        kami kamu kapan karena ke kecil kemarin ketika kita kucing kuning lagi lebih lima makan
        mana masih mau melihat membaca merah mereka minum nya oleh pada para pergi punya putih
        rumah sangat satu saya sebelum sebuah sedang sekali sekarang sekolah selalu sembilan semua
        seorang seperti sepuluh sering setelah siapa sudah suka supaya tapi telah teman tetapi
        tidak tidur tiga tujuh untuk yang
    """,
    "Italian": """
        acqua ai alla alle allora altra altro anche ancora aveva avevano bambina bambini bambino
        bianco c'e casa che chi ci cinque con cosa cosi da dal dalla degli dei del della delle
        dello di dieci domani dopo erano essere fratello gatto gia giallo gli grande hanno ho
        ieri il io la le lei libro lo loro lui mai mamma mi mie miei mio molto nei nel nella nero
        noi non nostra nostro nove oggi ogni perche piccola piccolo piu poi posso prima puo quando
        quattro quella quello questa questo qui rosso scuola se sei sempre sette si siamo sono
        sorella sta stata stato su sua sul sulla suo suoi ti tra tre tu tua tuo tutti tutto un una
        uno va vado verde vi viene voglio voi vuole
    """,
    "Norwegian": """
        aldri alle alltid atte av bak barna ble blir bok dagen de deg dem denne der dere deres
        derfor det dette ditt du ei eller en er et etter fem finnes foran fordi fra gar gikk
        gjennom gronn gutten hadde han har hele henne hennes heter hjemme hun hund huset hva hvem
        hver hvert hvit hvor hvordan ikke ingen inne jeg jenta kan katt kom kommer leker liten
        mange med mellom mens mer mitt mot na nar ni noe noen ofte og ogsa om opp sa samme seg
        seks selv siden sier sitt skal skolen skulle som stor svart synes syv ti til tre ut ute
        uten vaere vann var ved veldig vi vil
    """,
    "Polish": """
        albo bardzo beda bedzie bialy bo byc byl byla bylam bylem byli bylo chce chcial ci cie co
        czarny czerwony cztery czy dla dlaczego dobry dobrze domu duzy dwa dzieci dziecko dzien
        dziesiec dziewiec dzis gdy gdzie ich idzie idziemy ja jak jaki jego jej jesli jest jestem
        jestes jestesmy jeszcze juz kazdego kazdy kiedy kiedys kot ksiazka kto ktora ktore ktory
        ktorych ktorzy lub lubi lubie maja maly mam mama mi mial miala miedzy mnie moge moj moja
        moje mojego mojej mowi moze mozna mu na nad nie niebieski nigdy nowy od ona oni ono oraz
        osiem piec pies po podczas potem przed przez przy robi sa sie siedem siostra stary swoim
        swoj swoja swojej szesc szkola szkoly ta tak tam tata te tego tej teraz tez trzeba trzy tu
        twoj twoja ty tych tylko tym wiec wiem woda wszyscy wszystkie wszystko wy za zawsze ze
        zielony zolty
    """,
    "Portuguese": """
        agora agua ainda amanha amarelo antes ao aos aquela aquele aqui assim azul bem branco
        cachorro cada casa cinco com como crianca criancas da das de dela dele depois dez disse
        dois dos ela elas ele eles em entre escola essa esse esta estao estava estavam este eu faz
        fazer fica ficou foi gato gosta gosto grande hoje irma irmao isso isto ja livro mais mamae
        menina menino meu meus minha minhas muita muito na nao nas nos nossa nosso nove nunca oito
        onde ontem os ou outra outro pai papai para pela pelo pequena pequeno pode por porque
        preto quando quatro que quem quer quero sao se seis sem sempre ser sete seu seus sim sobre
        sua suas tambem tem ter teu tinha toda todas todos tres tua tudo um uma umas uns vai vamos
        verde vermelho voce voces vou
    """,
    "Romanian": """
        acea aceasta aceea acel acest acesta aceste acesti acolo acum ai aici alb albastru apa
        astfel atunci au avea aveau avem azi baiat baiatul buna ca caine cainele cand carte cartea
        casa casei catre ce ceva cinci cine cineva copii copiii copil copilul cu daca dar de
        deoarece despre doi dupa ea ei el eram erau este eu fara fata fetita fi fiecare fiind
        foarte fost galben ieri il inainte intre la langa le lor lui mai maine mama mea mei mele
        mereu merg mergem meu mic mica negru niciodata nimic noastra noi nostru noua nu pana patru
        pe pentru peste pisica poate prin rosu sa sapte sase sau scoala se si spune stie sunt ta
        tata tau te toate tot trei tu un unde unei unui vechi vede verde voastra voi vostru vrea
        vreau zece
    """,
    "Somali": """
        aabo aad aan adiga afar aniga annaga ay ayaa ayey ayuu baa badan bisad biyo buug carruur
        cas cusub dugsi ee guri guriga halkan hooyo ilmo isaga iyada iyo jira ka kale kan ku kuwa
        la laba leeyahay leh lix maanta maha marka markii oo saddex sagaal shan si siddeed tahay
        toban toddoba uu waa waan walaal waxa waxaa waxaan waxay weyn wuu wuxu wuxuu yahay yar
    """,
    "Spanish": """
        agua ahora algo amarillo antes aquel aquella aqui asi ayer azul bien blanco cada casa
        cinco como con cuando cuatro de del despues diez dijo donde dos el ella ellos en entre es
        esa escuela eso esta estaba estaban estan este estos estoy fue gato grande gusta habia
        hace han hemos hermana hermano hoy la las le les libro lo los mama manana mi mis mucha
        mucho muchos muy nada nino ninos nos nosotros nuestra nuestro nueve nunca ocho otra otro
        para pequena pequeno pero perro por porque puede puedo que quien quiere quiero rojo se
        seis ser si siempre siete sobre su sus tambien te tengo tenia tiene tienen toda todas todo
        todos tres tu tus un una unas unos usted va vamos verde voy
    """,
    "Swahili": """
        alikuwa alikwenda alisema ambao ambaye ambayo anacheza anakwenda anapenda anasema anataka
        au baada bado changu chini hakuna hapa hapana hawa hii hilo hivi hivyo hiyo hizi huko huyu
        ilikuwa ina jana juu kabla kama katika kesho kila kitabu kubwa kumi kuna kuwa kwa kwamba
        kwenye la lakini langu lini maji mama mbili mbwa mdogo mimi mkubwa moja msichana mtoto
        mvulana mwalimu na nane nani napenda nataka ndani ndege ndiyo ndogo ni nini nne nyekundu
        nyeupe nyeusi nyumba nyumbani paka rafiki saba sana sasa shule shuleni si siku sisi sita
        tano tatu tisa tunacheza una vizuri vya wa wakati wako wale walikuwa wana wangu wao wapi
        watoto wetu wewe wote yake yako yangu yao yetu yeye yote yule za zote
    """,
    "Swedish": """
        aldrig alla alltid andra ar att av bakom bara barnen bla blev blir bok bor bredvid dagen
        dar darfor de dem denna deras det detta ditt du efter eftersom eller en er ett fem finns
        flicka flickan framfor fran fyra gar genom gick gron gul hade han har hela hemma henne
        hennes heter hon honom hund hur huset ibland idag igar imorgon ingen innan inne inte jag
        kan katt kom kommer leker liten mamma maste med medan mellan mer mig mina mitt mot mycket
        nagon nagot nagra nar ni nio nu och ocks ocksa ofta om oss pappa pojke pojken roda sa sade
        sag sager samma ser sig sitt sjalv sju ska skolan skulle som stor svart tio tre tva tycker
        upp ut utan ute vad var vara varje vatten vem vi vid vill vit
    """,
    "Tagalog": """
        aking aklat ako akong amin ang anim ano apat aso asul ating ay bago bahay bata batang
        bukas dahil dalawa dito doon gusto habang hindi ikaw inyo isa isang ito iyan iyo iyon
        kahapon kaibigan kailan kami kaniyang kanya kanyang kapag kapatid kasi ko lahat lang lima
        maging malaki maliit mayroon mga mo na naging naman namin nanay nang nasa natin ng ngayon
        ni nila niya niyang niyo oo paano paaralan pagkatapos palagi para pero pito po pula pusa
        puti rin sa saan sampu si sila sino siya siyam siyang tatay tatlo tayo tayong tubig upang
        wala walo
    """,
    "Turkish": """
        aksam aldi alti altinda ancak annem arasinda arkadasim artik babam bana bazi beni benim
        beraber bes beyaz biliyor bir birlikte biz bizim boyle bu bugun burada butun buyuk cocuk
        cocuklar cok cunku da daha de dedi degil diye diyor dogru dokuz dort eger en eski evde
        evet evin gece geldi geliyor gibi gidiyor gitti guzel hangi hayir hem hic icin icinde iki
        ile istiyor istiyorum iyi kadar kardesim kedi kendi ki kirmizi kitap kopek kucuk lutfen
        mavi mi mu nasil ne neden nerede nicin okul okula okulda olan olarak oldu oldugunu olur
        ona onlar onun orada sabah sana sari sekiz seni senin sey simdi siyah siz sonra soyle su
        tarafindan uc uzerinde var vardi ve verdi yaninda yapiyor yarin yedi yeni yesil yok yoktu
        zaman
    """,
    "Vietnamese": """
        ai anh bo ca cac cai cay chi chiec choi chua chung co con cua cung da dau di duoc duoi
        duong em gi gio giua hai ho hom khac khi khong la luon minh moi mot muoi muon nao nen ngay
        nghe ngoai nguoi nha nhieu nho nhu nhung nuoc ong qua ra roi sach sao se ta tat thi thich
        thoi toi trang tren trong truoc truong tu va vang vao ve vi viec voi xanh xuong
    """,
}

ENGLISH = """
    about after again all always and another any around ask away because bed been before best
    better big black blue book both boy bring brown but buy call came can can't cat clean cold
    could cut day did didn't does dog don't done down draw drink each eat eight every fall far
    fast father find first five fly found four from full funny gave get girl give goes going good
    got green grow has have he's head help here him his hold home hot house how hurt i'll i'm if
    into isn't it it's its jump just keep know last laugh let let's light like little live long
    look made make man many mister more mother mr much must myself name never new night not now
    off old one only open or other our out own people pick place play please pretty pull put ran
    read red ride right round run said same saw say see seven shall she she's show sing six sleep
    small some soon start still stop such tell than thank that that's the their them then there
    these they they're thing think this those three time today together too took tree try two up
    upon us use very walk want warm wash water we'll we're well went were what when where which
    while white who why wish with without woman word work world would write year yellow yes you
    your
"""
