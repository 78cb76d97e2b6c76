/** The API's messages as ProtoJSON writes them: 64-bit integers are strings,
 * messages and optional fields are absent where they are not set. */

export interface ClassInfo {
  index: number;
  displayName: string;
  exampleCount: number;
  validationCount: number;
}

export interface Candidate {
  method: string;
  accuracy: number;
  crossEntropy: number;
  skipped: string;
}

export interface Selection {
  source: string;
  exampleCount: string;
  candidates: Candidate[];
  reason: string;
}

export interface Head {
  method: string;
  alpha: number;
  beta: number;
  temperature: number;
  selection?: Selection;
  /** What came of the pictures without a class, if it was given any. */
  unlabelled?: { count: string; used: boolean; reason: string };
}

export interface FineTuneRecord {
  epochs: number;
  bestEpoch: number;
  accuracyBefore: number;
  accuracyAfter: number;
  seconds: number;
}

export interface Version {
  name: string;
  version: string;
  createTime?: string;
  parent: string;
  description: string;
  labels: Record<string, string>;
  classes: ClassInfo[];
  classCount: number;
  keyCount: string;
  sizeBytes: string;
  pictureCount: string;
  createdBy: string;
  bundleFingerprint: string;
  exifOrientation: string;
  /** Examples of none of its classes. */
  unknownCount: string;
  /** Whether its examples and answers carry any number of classes. */
  multiLabel: boolean;
  head?: Head;
  fineTune?: FineTuneRecord;
}

export interface Cache {
  name: string;
  createTime?: string;
  latest?: Version;
  aliases: Record<string, string>;
  versionCount: number;
  etag: string;
}

export interface ExampleInfo {
  exampleId: string;
  classIndex: number;
  displayName: string;
  validation: boolean;
  uri: string;
  hasPicture: boolean;
  /** Whether it is of none of the classes. */
  unknown: boolean;
  /** In place of classIndex where examples carry several classes. */
  classIndices: number[];
}

export type Role = "classify" | "write" | "admin";

export interface ServerInfo {
  version: string;
  bundle?: { name: string; hasImageEncoder: boolean; imageSize: number; resizeTo: number };
  device: string;
  dtype: string;
  limits: Record<string, string>;
  caller?: { name: string; role: Role; cachePrefix: string };
}

/** A picture's file in base64, or an embedding: base64 of its 32-bit floats. */
export type Input = { encodedImage: string } | { embedding: Embedding };

export interface Embedding {
  values: string;
}

export interface ClassScore {
  index: number;
  displayName: string;
  logit: number;
  probability: number;
}

export interface Neighbour {
  exampleId: string;
  classIndex: number;
  displayName: string;
  classIndices: number[];
  similarity: number;
}

export interface Classification {
  version: string;
  top: ClassScore[];
  neighbours: Neighbour[];
  /** Whether the picture is of a class that the version knows, where that was asked. */
  accepted?: boolean;
  /** The classes that hold the picture's as often as was asked. */
  predictionSet: ClassScore[];
  /** All its classes, where the version's pictures carry several. */
  labels: ClassScore[];
  /** Where it was asked for. */
  embedding?: Embedding;
}

export interface Status {
  code: number;
  message: string;
  details?: { "@type": string; reason?: string; metadata?: Record<string, string> }[];
}

export interface EmbedResult {
  embedding?: Embedding;
  error?: Status;
}

export interface RejectedExample {
  exampleId: string;
  message: string;
  reason: string;
}

export interface CreateEvent {
  progress?: { stage: string; received: string; encoded: string; rejected: string };
  rejected?: RejectedExample;
  version?: Version;
}

export interface ClassEvaluation {
  index: number;
  displayName: string;
  count: string;
  accuracy: number;
}

export interface Evaluation {
  version: string;
  count: string;
  top1: number;
  top5: number;
  crossEntropy: number;
  expectedCalibrationError: number;
  classes: ClassEvaluation[];
}

export interface FineTuneProgress {
  epoch: number;
  epochs: number;
  step: string;
  steps: string;
  loss: number;
  trainAccuracy: number;
  validationAccuracy?: number;
  timeLeft?: string;
}

export interface FineTuneRun {
  name: string;
  state: string;
  parent: string;
  version?: Version;
  progress?: FineTuneProgress;
  error?: Status;
  createTime?: string;
  aliasMoved: boolean;
  /** Whether no version was made, as none would have been better. */
  unchanged: boolean;
  /** What came of it, in a sentence. */
  outcome: string;
}

export interface FineTuneEvent {
  run?: FineTuneRun;
  progress?: FineTuneProgress;
}

export interface Suggestion {
  id: string;
  score: number;
  reason: string;
  clusterSize: string;
  top: ClassScore[];
  duplicateIds: string[];
}

export interface SuggestResponse {
  suggestions: Suggestion[];
  reason: string;
  distinctCount: string;
}

export interface CurvePoint {
  shots: number;
  accuracy: number;
  low: number;
  high: number;
}

export interface ClassAnalysis {
  index: number;
  displayName: string;
  exampleCount: number;
  scoredCount: number;
  accuracy: number;
  precision: number;
  expectedGain: number;
  /** From which probability on its answers are right 95 times in 100; over 1: never. */
  precisionThreshold?: { threshold: number };
}

export interface SuspectExample {
  exampleId: string;
  classIndex: number;
  displayName: string;
  probability: number;
  suggested?: ClassScore;
}

export interface DuplicatePair {
  exampleId: string;
  displayName: string;
  otherExampleId: string;
  otherDisplayName: string;
  similarity: number;
  exact: boolean;
}

export interface ReliabilityBin {
  low: number;
  high: number;
  count: string;
  probability: number;
  accuracy: number;
}

export interface Analysis {
  version: string;
  method: string;
  advice: string;
  exampleCount: string;
  scoredCount: string;
  accuracy: number;
  accuracyError: number;
  expectedCalibrationError: number;
  curve: CurvePoint[];
  forecast?: CurvePoint;
  classes: ClassAnalysis[];
  confusion: string[];
  suspects: SuspectExample[];
  suspectCount: string;
  misclassified?: SuspectExample[];
  duplicates: DuplicatePair[];
  duplicateCount: string;
  reliability: ReliabilityBin[];
  skipped: string[];
}

export interface ClassTraffic {
  index: number;
  displayName: string;
  expectedShare: number;
  share: number;
}

export interface Drift {
  version: string;
  since?: string;
  itemCount: string;
  comparedCount: string;
  similarityShares: number[];
  similarityIndex?: number;
  classIndex: number;
  classes: ClassTraffic[];
  recognisedCount: string;
  rejectedShare: number;
  summary: string;
}
