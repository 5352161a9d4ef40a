//! Patients, whole and with gaps.

use super::*;
use crate::model::InputShape;

const HEAD: &str = "id,age,sex,dataset,cp,trestbps,chol,fbs,restecg,thalch,exang,oldpeak,slope,ca,thal,num\n";

/// Reads patients of whom the last is held out.
fn parse(rows: &str) -> Result<(Dataset, Dataset), Error> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    std::fs::write(&path, format!("{HEAD}{rows}")).unwrap();
    read(&path, |groups| {
        let last = groups.len() as u32 - 1;
        Ok(((0..last).collect(), vec![last]))
    })
}

fn column(dataset: &Dataset, column: usize) -> Vec<f32> {
    let mut values = Vec::new();
    for row in 0..dataset.len() as u32 {
        dataset.append_row(row, &mut values);
    }
    values.chunks(dataset.input().width).map(|row| row[column]).collect()
}

#[test]
fn gaps_become_medians_and_words_become_features_of_unit_variance() {
    let (train, test) = parse(
        "1,40,Male,B,asymptomatic,100,0,TRUE,normal,150,FALSE,0,flat,0,normal,0\n\
         2,50,Female,A,non-anginal,120,200,,normal,,TRUE,1,,,,3\n\
         3,60,Male,B,asymptomatic,140,300,TRUE,,170,TRUE,2,,,,1\n\
         4,,Male,A,typical angina,0,0,,,,,,,,,0\n",
    )
    .unwrap();
    assert_eq!((*train.input(), train.len(), test.len()), (InputShape::table(15, 2), 3, 1));
    assert_eq!((train.labels(), test.labels()), ([0, 1, 1].as_slice(), [0].as_slice()));
    assert_eq!((train.key_names(), train.keys()), (["A".into(), "B".into()].as_slice(), Some([1, 0, 1].as_slice())));
    let unit = 1.5f32.sqrt();
    // The age of the last is missing: the median of the others, which is their mean here.
    assert_eq!((column(&train, 0), column(&test, 0)), (vec![-unit, 0.0, unit], vec![0.0]));
    // A cholesterol of 0 is missing, and the upper median of 200 and 300 takes its place.
    let cholesterol = column(&train, 7);
    assert_eq!((cholesterol[0], column(&test, 7)[0]), (cholesterol[2], cholesterol[2]));
    assert!(cholesterol[1] < cholesterol[0]);
    // No patient among those trained on has typical angina, so that feature is constant and says nothing.
    assert_eq!((column(&train, 2), column(&test, 2)), (vec![0.0; 3], vec![0.0]));
    // Asymptomatic: the first and the third.
    let asymptomatic = column(&train, 5);
    assert!(asymptomatic[0] == asymptomatic[2] && asymptomatic[0] > 0.0 && asymptomatic[1] < 0.0);
    // A missing electrocardiogram is a normal one, the most frequent.
    assert_eq!(column(&train, 9), [0.0; 3]);
}

#[test]
fn words_and_columns_that_are_not_known_are_told() {
    let patient = "1,40,Male,B,asymptomatic,100,0,TRUE,normal,150,FALSE,0,flat,0,normal,0\n";
    let problem = |rows: &str| parse(rows).map(|(train, _)| train.len()).unwrap_err().to_string();
    let told = problem(&patient.replace("asymptomatic", "a cough"));
    assert!(
        told.ends_with(
            r#"line 2, column "cp": "a cough" is none of typical angina, atypical angina, non-anginal, asymptomatic"#
        ),
        "{told}"
    );
    let told = problem(&patient.replace(",40,", ",old,"));
    assert!(told.contains(r#"column "age": "old" is not a finite number"#), "{told}");
    let told = problem("1,40,Male\n");
    assert!(told.ends_with("line 2 has 3 fields and the header 16"), "{told}");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.csv");
    std::fs::write(&path, "a,b\n1,2\n").unwrap();
    let told = read(&path, |_| Ok((vec![0], vec![]))).unwrap_err().to_string();
    assert!(told.ends_with(r#"it has no column "dataset"; fetch it again"#), "{told}");
}
